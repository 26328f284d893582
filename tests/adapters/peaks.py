"""A case of `test_bases.py`, run as a program: what a load with an adapter takes, beside what its plan predicts."""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

import bridge
from bridge.cli.memory import forget_peak, peak_nbytes, resident_nbytes
from tests.adapters.write import adapter, peft

RULES = ["h.{l}.up.weight [o i] -> up [l i o]", "h.{l}.down.weight -> down"]
SLACK = 24 << 20  # Python's and numpy's own, and what the allocator keeps


def written(folder: Path, rows: int, columns: int, *, dora: bool) -> tuple[Path, Path]:
    folder.mkdir()
    shapes = {
        f"h.{n}.{name}": shape for n in range(2) for name, shape in (("up", (rows, columns)), ("down", (columns, rows)))
    }
    bf16 = np.dtype(ml_dtypes.bfloat16)
    save_file({f"{name}.weight": np.ones(shape, bf16) for name, shape in shapes.items()}, folder / "model.safetensors")
    tensors = peft({name: (np.ones((64, b), "f4"), np.ones((a, 64), "f4")) for name, (a, b) in shapes.items()})
    if dora:
        at = "base_model.model"
        tensors |= {f"{at}.{name}.lora_magnitude_vector": np.ones(a, "f4") for name, (a, _) in shapes.items()}
    return folder / "model.safetensors", adapter(folder / "lora", tensors, r=64, use_dora=dora)


def check(folder: Path, *, dora: bool) -> None:
    small, large = (written(folder / f"{dora}{rows}", rows, 4096, dora=dora) for rows in (64, 2048))
    jax.block_until_ready(bridge.load(small[0], None, RULES, adapters=small[1]))  # imports and pools
    plan = bridge.plan(large[0], None, RULES, adapters=large[1])
    forget_peak()
    before = resident_nbytes()
    made = bridge.load(large[0], None, plan, adapters=large[1])
    peak, final = peak_nbytes() - before, sum(leaf.nbytes for leaf in made.values())
    print(f"{dora=} {final=:,} {plan.peak_nbytes=:,} {peak=:,}")
    assert final <= plan.peak_nbytes <= final + (64 << 20)
    assert peak <= plan.peak_nbytes + SLACK


if __name__ == "__main__":
    for dora in (False, True):
        check(Path(sys.argv[1]), dora=dora)
    print("ok")
