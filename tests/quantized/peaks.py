"""Cases of `test_loading.py`, run as a program: what a dequantised load takes, beside what its plan predicts."""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import jax.numpy as jnp

import bridge
from bridge.cli.memory import forget_peak, peak_nbytes, resident_nbytes
from tests.quantized.loads import KINDS, layers

RULES = ["h.{l}.up.weight [o i] -> up [l i o]", "h.{l}.up.bias -> bias"]
SLACK = 24 << 20  # Python's and numpy's own, and what the allocator keeps


def check(kind: str, folder: Path) -> None:
    small, large = layers(folder / f"{kind}-small", kind, 2), layers(folder / kind, kind, 2, 4096, 8192)
    jax.block_until_ready(bridge.load(small, None, RULES, dtype=jnp.bfloat16))  # imports and pools
    plan = bridge.plan(large, None, RULES, dtype=jnp.bfloat16)
    forget_peak()
    before = resident_nbytes()
    made = bridge.load(large, None, plan)
    peak, final = peak_nbytes() - before, sum(leaf.nbytes for leaf in made.values())
    print(f"{kind}: {final=:,} {plan.peak_nbytes=:,} {peak=:,}")
    assert final <= plan.peak_nbytes <= final + (64 << 20)
    assert peak <= plan.peak_nbytes + SLACK


if __name__ == "__main__":
    for name in KINDS:
        check(name, Path(sys.argv[1]))
    print("ok")
