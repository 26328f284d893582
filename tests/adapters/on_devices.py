"""A case of `test_bases.py`, run as a program under eight host devices: shards at and off the tiles of the product."""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from safetensors.numpy import save_file

import bridge
from tests.adapters.write import adapter, peft

RULES = ["h.{l}.up.weight [o i] -> up [l i o]"]
SPECS = {"rows": P(None, None, "x"), "columns": P(None, "x"), "both": P(None, "y", "x")}


def check(folder: Path, *, dora: bool, dtype: object) -> None:
    rng = np.random.default_rng(0)

    def floats(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, dtype=np.float32)

    save_file({f"h.{n}.up.weight": floats(80, 2056) for n in range(2)}, folder / "model.safetensors")
    tensors = peft({f"h.{n}.up": (floats(8, 2056), floats(80, 8)) for n in range(2)})
    if dora:
        tensors |= {f"base_model.model.h.{n}.up.lora_magnitude_vector": abs(floats(80)) + 1 for n in range(2)}
    lora = adapter(folder / "lora", tensors, r=8, use_dora=dora)
    whole = bridge.load(folder / "model.safetensors", rules=RULES, adapters=lora, dtype=dtype)["up"]
    devices = np.array(jax.devices())
    assert len(devices) == 8
    for name, spec in SPECS.items():
        sharding = (Mesh(devices.reshape((4, 2) if name == "both" else (8, 1)), ("x", "y")), {"up": spec})
        options = {"sharding": sharding, "adapters": lora, "dtype": dtype}
        made = bridge.load(folder / "model.safetensors", rules=RULES, **options)["up"]
        assert np.asarray(made).tobytes() == np.asarray(whole).tobytes(), name


if __name__ == "__main__":
    check(Path(sys.argv[1]), dora=False, dtype=jnp.float32)
    check(Path(sys.argv[1]), dora=True, dtype=jnp.bfloat16)
    print("ok")
