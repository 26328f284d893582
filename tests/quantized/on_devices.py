"""Cases of `test_loading.py`, run as a program under eight host devices: shards at and off the blocks."""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

import bridge
from tests.quantized.loads import KINDS, layers
from tests.stream.views import counted, same

RULES = ["h.{l}.up.weight [o i] -> up [l i o]", "h.{l}.up.bias -> bias"]
# Cuts of rows and columns of the stored weight, at blocks and between them.
SPECS = {"rows": P(None, None, "x"), "columns": P(None, "x"), "both": P(None, "y", "x")}


def check(kind: str, folder: Path, rows: int) -> None:
    source = layers(folder / f"{kind}{rows}", kind, 2, rows, 1024)
    devices = np.array(jax.devices())
    assert len(devices) == 8
    expected = bridge.load(source, None, RULES, dtype=jnp.float32)
    with bridge.open(source) as ckpt:
        stored = bridge.plan(ckpt, None, RULES).nbytes
        for name, spec in SPECS.items():
            shape = (4, 2) if name == "both" else (8, 1)
            sharding = (Mesh(devices.reshape(shape), ("x", "y")), {"up": spec})
            for budget in (None, 200_000):
                options = {"sharding": sharding, "max_host_bytes": budget}
                plan = bridge.plan(ckpt, None, RULES, dtype=jnp.float32, **options)
                with counted(pytest.MonkeyPatch()) as lengths:
                    made = bridge.load(ckpt, None, plan, **options)
                same(made, expected)
                assert sum(lengths) == plan.nbytes
                if budget is None and name == "rows" and rows % 1024 == 0 and kind != "gptq":
                    assert plan.nbytes <= 1.05 * stored, (kind, plan.nbytes, stored)


if __name__ == "__main__":
    for name in KINDS:
        check(name, Path(sys.argv[1]), 1024)
        check(name, Path(sys.argv[1]), 320)
    print("ok")
