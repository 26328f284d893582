"""Shardings that are refused, and unusual ones; cases of `eight_kinds.py`."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from safetensors.numpy import save_file

import bridge
from tests.errors.promised import text_of
from tests.place.eight_devices import mesh


def refused(folder: Path) -> None:
    """What JAX refuses, said with leaf, shape and spec."""
    save_file({"w": np.ones((8, 6), np.float32)}, folder / "w.safetensors")
    like = {"w": jax.ShapeDtypeStruct((8, 6), np.float32)}
    where = mesh(4, 2)
    start = "leaf 'w' of shape (8, 6) cannot have the sharding "
    cases = [
        ((where, {"w": P("a", "a")}), start + "P('a', 'a'): it names mesh axis 'a' twice"),
        ((where, {"w": P(("a", "b"), "b")}), start + "P(('a', 'b'), 'b'): it names mesh axis 'b' twice"),
        ((where, {"w": P("z")}), start + "P('z',): Resource axis: z of P('z',) is not found in mesh: ('a', 'b')."),
        ((where, {"w": P("b", "a")}), start + "P('b', 'a'): "),
        ((where, {"w": None}), "sharding: pattern 'w' stands for None. Give a jax.sharding.PartitionSpec"),
        ((where, {"w": ("a",)}), "sharding: pattern 'w' stands for ('a',). Give a jax.sharding.PartitionSpec"),
        (where, "sharding is a mesh alone"),
        (
            NamedSharding(AbstractMesh((4, 2), ("a", "b")), P("a")),
            start + "P('a',): its mesh {'a': 4, 'b': 2} has no devices. Call jax.set_mesh(mesh) with some",
        ),
    ]
    for sharding, text in cases:
        with pytest.raises(bridge.PlanError) as caught:
            bridge.plan(folder / "w.safetensors", like, sharding=sharding)
        assert str(caught.value).startswith(text), str(caught.value)
    for nbytes in (0, -1, 2.5, "1GB"):
        with pytest.raises(bridge.PlanError) as caught:
            bridge.load(folder / "w.safetensors", like, max_host_bytes=nbytes)
        text = text_of("load: a bound on memory that is no number").replace("'1GB'", f"{nbytes!r}")
        assert str(caught.value) == text


def traced(folder: Path) -> None:
    """Shardings of a model traced under a mesh are of the mesh's axes; its devices are those of the mesh that is set."""
    save_file({"w": np.ones((8, 6), np.float32)}, folder / "w.safetensors")
    where = jax.make_mesh((4, 2), ("a", "b"))
    with jax.set_mesh(where):
        like = jax.eval_shape(lambda: {"w": jax.sharding.reshard(jnp.zeros((8, 6)), P("a"))})
        loaded = bridge.load(folder / "w.safetensors", like)
    assert loaded["w"].sharding.is_equivalent_to(NamedSharding(where, P("a")), 2)


def memories(folder: Path) -> None:
    """A sharding says also which of a device's memories."""
    save_file({"w": np.ones((8, 6), np.float32)}, folder / "w.safetensors")
    where = NamedSharding(Mesh(np.array(jax.devices()), "a"), P("a"), memory_kind="unpinned_host")
    for budget in (None, 64):
        loaded = bridge.load(folder / "w.safetensors", None, sharding=lambda *_: where, max_host_bytes=budget)["w"]
        assert loaded.sharding == where
        assert np.asarray(loaded).sum() == 48
