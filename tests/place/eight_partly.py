"""Leaves of which a checkpoint has a part, over eight host devices; run by `eight_kinds.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from safetensors.numpy import save_file

import bridge
from tests.place.eight_devices import check, mesh

RULES = ["h.{l}.w [i o] -> w [l o i]", "emb [v d] -> embed [v[:9] d]"]


def partly(folder: Path) -> None:
    """Every shard has its own part of what keys fill and of what is kept, whatever the template's values lie on."""
    tensors = {f"h.{n}.w": np.arange(8 * n, 8 * n + 64, dtype=np.float32).reshape(8, 8) for n in range(3)}
    tensors["emb"] = np.arange(72, dtype=np.float32).reshape(9, 8)
    path = folder / "partly.safetensors"
    save_file(tensors, path)
    where, specs = mesh(4, 2), {"w": P("a", "b"), "embed": P("a", "b")}
    own = {"w": -np.arange(512, dtype=np.float32).reshape(8, 8, 8), "embed": -np.ones((16, 8), np.float32)}
    expected = {name: array.copy() for name, array in own.items()}
    expected["w"][:3] = np.stack([tensors[f"h.{n}.w"].T for n in range(3)])
    expected["embed"][:9] = tensors["emb"]
    spread = {name: NamedSharding(where, P(None, "b")) for name in own}
    likes: list[Any] = [own, jax.tree.map(jnp.asarray, own), jax.device_put(own, spread)]
    for like in likes:
        for budget in (None, 512):
            options: dict[str, Any] = {"sharding": (where, specs), "max_host_bytes": budget}
            made = bridge.load(path, like, RULES, allow_missing="**", **options)
            for name, array in made.items():
                check(array, expected[name])
                assert array.sharding == NamedSharding(where, specs[name])
            report = bridge.save(made, folder / "partly-out.safetensors", RULES, overwrite=True)
            assert [name for name, _ in report.left_out] == ["embed[9:16]"]
    plan = bridge.plan(path, own, RULES, allow_missing="**")
    bridge.save(bridge.load(path, own, plan), folder / "partly-out.safetensors", plan, overwrite=True)
    assert len(bridge.load(folder / "partly-out.safetensors")) == 9
