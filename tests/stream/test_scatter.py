"""Many short tensors side by side: read at once, copied to their places, bit for bit."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

import bridge
from bridge.format.table import Table
from bridge.place.work import HostBuffers
from bridge.planning.plan import Plan
from bridge.source.checkpoint import open_checkpoint
from bridge.stream.buffers import CHUNK
from bridge.stream.jobs import jobs
from bridge.stream.scatter import Scatter
from tests.craft import checkpoint

RNG = np.random.default_rng(0)


def kinds(path: Path, plan: Plan) -> list[type]:
    """Of what kind the reads of a plan are."""
    with open_checkpoint(path) as ckpt:
        assert isinstance(ckpt.specs, Table)
        again = bridge.plan(ckpt, None, plan)
        return [type(job) for job in jobs(HostBuffers(again.blocks, again.leaves, {}).blocks, ckpt.specs)]


@pytest.mark.parametrize("layers", [5, 15, 16, 400])
def test_leaves_of_several_lengths_and_dtypes_interleaved(tmp_path: Path, layers: int):
    parts = {"a": ((3,), np.float32), "b": ((5, 7), np.float16), "c": ((1,), np.int8), "d": ((0,), np.float64)}
    made = {name: RNG.standard_normal((layers, *shape), np.float32).astype(d) for name, (shape, d) in parts.items()}
    path = tmp_path / "model.safetensors"
    path.write_bytes(checkpoint({f"h.{n}.{name}": array[n] for n in range(layers) for name, array in made.items()}))
    like = {"h": {name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in made.items()}}
    loaded = bridge.load(path, like)["h"]
    for name, array in made.items():
        assert np.asarray(loaded[name]).tobytes() == array.tobytes()
    found = kinds(path, bridge.plan(path, like, [f"h.{{l}}.{name} -> h.{name}" for name in parts]))
    assert (Scatter in found) is (layers >= 16)


def test_leaves_of_their_own_are_read_into_their_places(tmp_path: Path):
    """A list of layers: there is nothing that one copy could do for several runs."""
    made = {f"h.{n}.b": RNG.standard_normal(9, np.float32) for n in range(400)}
    path = tmp_path / "model.safetensors"
    save_file(made, path)
    like = {"h": [{"b": jax.ShapeDtypeStruct((9,), np.float32)} for _ in range(400)]}
    plan = bridge.plan(path, like)
    loaded = bridge.load(path, like, plan)["h"]
    assert all(np.asarray(loaded[n]["b"]).tobytes() == made[f"h.{n}.b"].tobytes() for n in range(400))
    with open_checkpoint(path) as ckpt:
        assert Scatter not in [type(job) for job in jobs(HostBuffers(plan.blocks, plan.leaves, {}).blocks, ckpt.specs)]


def test_a_stretch_longer_than_a_chunk_in_two_axes(tmp_path: Path):
    made = RNG.integers(0, 1 << 16, (3, 1000, 1024), np.uint16)
    assert made.nbytes > CHUNK
    path = tmp_path / "model.safetensors"
    save_file({f"h.{n}.e.{e}.w": made[n, e] for n in range(3) for e in range(1000)}, path)
    like = {"w": jax.ShapeDtypeStruct((1000, 3, 1024), np.uint16)}
    loaded = bridge.load(path, like, ["h.{l}.e.{e}.w [a] -> w [e l a]"])["w"]
    np.testing.assert_array_equal(loaded, made.transpose(1, 0, 2))


def test_short_tensors_among_long_ones(tmp_path: Path):
    made = {f"h.{n}.{w}": RNG.standard_normal(9 if w == "b" else 9000, np.float32) for n in range(40) for w in "bw"}
    path = tmp_path / "model.safetensors"
    save_file(made, path)
    like = {"h": {w: jax.ShapeDtypeStruct((40, 9 if w == "b" else 9000), np.float32) for w in "bw"}}
    loaded = bridge.load(path, like)["h"]
    for w in "bw":
        np.testing.assert_array_equal(loaded[w], np.stack([made[f"h.{n}.{w}"] for n in range(40)]))
