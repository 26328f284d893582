"""Blocks whose rows have leaves of their own, built by hand: a list of layers is one block, whatever the dtypes."""

from __future__ import annotations

from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from safetensors.numpy import save_file

import bridge
from bridge.mapping.arrays import Arrays, ArrayTable
from bridge.mapping.block import Block, MemoryMap, Term
from bridge.mapping.indexmap import AxisLoop, IndexMap
from bridge.mapping.shard import BoxGrid
from bridge.mapping.template import Spec
from bridge.place.work import HostBuffers
from bridge.source.checkpoint import Checkpoint, open_checkpoint
from bridge.stream.batches import Batches
from bridge.stream.buffers import batches
from bridge.stream.gather import HostLeaf, gather, pieces
from bridge.stream.jobs import fill, jobs

BF16 = np.dtype(ml_dtypes.bfloat16)
F4, F2, I1 = np.dtype("f4"), np.dtype("f2"), np.dtype("i1")
STORED = [F4, BF16, F2, F4, I1]
WANTED = [F4, F4, F2, BF16, np.dtype("i4")]
LAYERS, SHAPE = 40, (6, 10)
RNG = np.random.default_rng(0)


def transposed(key: tuple[int, int]) -> IndexMap:
    rows, columns = key
    return IndexMap(key, (columns, rows), (0, 0), (0, 0), (AxisLoop(rows, 0, 1, 1, 1), AxisLoop(columns, 1, 1, 0, 1)))


def straight(key: tuple[int, int]) -> IndexMap:
    return IndexMap(key, key, (0, 0), (0, 0), tuple(AxisLoop(n, axis, 1, axis, 1) for axis, n in enumerate(key)))


def halves(key: tuple[int, int]) -> IndexMap:
    """Half of the rows of a tensor, as leaves of their own."""
    half = (key[0] // 2, key[1])
    return IndexMap(key, half, (0, 0), (0, 0), tuple(AxisLoop(n, axis, 1, axis, 1) for axis, n in enumerate(half)))


class Case:
    """A checkpoint of layers, and one block that makes leaves of them: which, and what numpy makes of the tensors."""

    def __init__(self, path: Path, index_map: IndexMap) -> None:
        self.tensors = {
            f"h.{n}.w": RNG.integers(-100, 100, SHAPE).astype(STORED[n % 5]) for n in reversed(range(LAYERS))
        }
        save_file(self.tensors, path)
        self.ckpt: Checkpoint = open_checkpoint(path)
        half = index_map.leaf_shape[0] < SHAPE[0] and index_map.leaf_shape[1] == SHAPE[1]
        times = 2 if half else 1
        names = [f"out.{n}.{part}" for n in range(LAYERS) for part in range(times)]
        self.leaves = {name: Spec(WANTED[n // times % 5], index_map.leaf_shape) for n, name in enumerate(names)}
        keys = ArrayTable.of(self.ckpt.specs)
        rows = [keys.numbers[f"h.{n}.w"] for n in range(LAYERS) for _ in range(times)]
        starts = np.array([(part * 3, 0) for _ in range(LAYERS) for part in range(times)], np.int64)
        term = Term(index_map, Arrays(keys, np.array(rows)), starts)
        table = ArrayTable.of(self.leaves)
        self.block = Block(Arrays(table, np.arange(len(names))), (term,), np.zeros((len(names), 2), np.int64))
        self.expected: dict[str, np.ndarray] = {}
        for n in range(LAYERS):
            tensor = self.tensors[f"h.{n}.w"]
            parts = np.split(tensor, 2) if half else [tensor if index_map.loops[0].leaf_axis == 0 else tensor.T]
            for part, values in enumerate(parts):
                self.expected[f"out.{n}.{part}"] = values.astype(WANTED[n % 5])


@pytest.fixture(params=[straight, transposed, halves])
def case(request: pytest.FixtureRequest, tmp_path: Path):
    made = Case(tmp_path / "layers.safetensors", request.param(SHAPE))
    yield made
    made.ckpt.close()


def test_every_leaf_gets_its_bits(case: Case):
    work = HostBuffers([case.block], case.leaves, {})
    memory = {name: np.empty(spec.shape, spec.dtype) for name, spec in work.buffers.items()}
    fill(work.blocks, case.ckpt.specs, case.ckpt, memory)
    for name, expected in case.expected.items():
        assert memory[name].dtype == expected.dtype
        assert memory[name].tobytes() == expected.tobytes(), name


def test_each_byte_is_read_once(case: Case):
    work = HostBuffers([case.block], case.leaves, {})
    found = jobs(work.blocks, case.ckpt.specs)
    assert sum(job.nbytes for job in found) == sum(tensor.nbytes for tensor in case.tensors.values())


def test_shards_of_some_leaves(case: Case):
    """Of every third leaf the first rows, of the next one all, of the last one nothing."""
    memory = MemoryMap()
    for n, (name, spec) in enumerate(case.leaves.items()):
        box = (spec.shape[0] // 2, spec.shape[1] // 5)
        if n % 3 == 0:
            grid = BoxGrid((0, box[1]), (1, 3), box)
            memory.add(name, f"{name}@", Spec(spec.dtype, grid.shape), grid)
        elif n % 3 == 1:
            memory.add(name, name, spec)
    arrays = {name: np.zeros(spec.shape, spec.dtype) for name, spec in memory.specs.items()}
    fill(memory.over([case.block]), case.ckpt.specs, case.ckpt, arrays)
    for n, (name, expected) in enumerate(case.expected.items()):
        if n % 3 == 0:
            width = expected.shape[1] // 5
            parts = expected[: expected.shape[0] // 2, width : 4 * width].reshape(-1, 3, width).transpose(1, 0, 2)
            assert arrays[f"{name}@"].tobytes() == parts.tobytes(), name
        elif n % 3 == 1:
            assert arrays[name].tobytes() == expected.tobytes(), name


def test_shardings_that_differ_from_leaf_to_leaf(case: Case):
    mesh = Mesh(np.array(jax.devices()[:1]), "x")
    kinds = [None, NamedSharding(mesh, P("x")), NamedSharding(mesh, P(None, "x"))]
    where = {name: kinds[n % 3] for n, name in enumerate(case.leaves)}
    work = HostBuffers([case.block], case.leaves, where)
    memory = {name: np.empty(spec.shape, spec.dtype) for name, spec in work.buffers.items()}
    fill(work.blocks, case.ckpt.specs, case.ckpt, memory)
    for name, array in work.place(memory).items():
        assert np.asarray(array).tobytes() == case.expected[name].tobytes(), name


@pytest.mark.parametrize("limit", [1, 700, 1 << 20])
def test_parts_of_a_bounded_size(case: Case, limit: int):
    made = Batches([case.block], case.leaves)
    found = {name: np.zeros(spec.shape, spec.dtype) for name, spec in case.leaves.items()}
    parts = (p for name, s in case.leaves.items() for p in made.parts(name, tuple(map(range, s.shape)), limit))
    for batch in batches(parts, limit):
        assert len(batch) == 1 or sum(part.nbytes for part in batch) <= limit
        memory = {part.name: np.empty(part.shape, part.spec.dtype) for part in batch}
        fill(made.of(batch), case.ckpt.specs, case.ckpt, memory)
        for part in batch:
            found[part.leaf][tuple(slice(r.start, r.stop) for r in part.box)] = memory[part.name]
    for name, expected in case.expected.items():
        assert found[name].tobytes() == expected.tobytes(), name


def test_the_way_back(case: Case):
    leaves = {name: [HostLeaf(values)] for name, values in case.expected.items()}
    for key, held in pieces([case.block]).items():
        tensor = case.tensors[key]
        assert gather(held, leaves, tensor.dtype).tobytes() == tensor.tobytes()


def test_a_plan_that_is_one_block(case: Case, tmp_path: Path):
    """Through `bridge.load`: what a plan of layers in a list comes to is the same as this block."""
    names = list(dict.fromkeys(name.rpartition(".")[0] for name in case.leaves))
    like = {"out": {n.split(".")[1]: jax.ShapeDtypeStruct(SHAPE, WANTED[int(n.split(".")[1]) % 5]) for n in names}}
    loaded = bridge.load(case.ckpt, like, ["h.{l}.w -> out.{l}"])["out"]
    for n in range(LAYERS):
        expected = case.tensors[f"h.{n}.w"].astype(WANTED[n % 5])
        assert np.asarray(loaded[str(n)]).tobytes() == expected.tobytes()
