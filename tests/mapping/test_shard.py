"""Cut index maps against numpy: every grid's memory holds just the boxes of the whole leaf."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.mapping.block import Block
from bridge.mapping.pattern import NamePatterns
from bridge.mapping.shard import BoxGrid, shard
from bridge.mapping.template import Spec, Template
from bridge.planning.plan import Plan, PlanRequest, make_plan
from bridge.rules.rule import Rule
from bridge.stream.direct import KeyRows, moves, view

F4 = np.dtype("f4")
CASES = {
    "stack": (["h.{l}.w -> w"], {f"h.{n}.w": (4, 6) for n in range(4)}, {"w": (4, 4, 6)}),
    "transposed stack": (["h.{l}.w [a b] -> w [b l a]"], {f"h.{n}.w": (4, 6) for n in range(4)}, {"w": (6, 4, 4)}),
    "heads": (["w [(h d) m] -> w [h d m] ; h=4"], {"w": (12, 6)}, {"w": (4, 3, 6)}),
    "joined heads": (["w [h d m] -> w [(h d) m]"], {"w": (4, 3, 6)}, {"w": (12, 6)}),
    "other order": (["w [(h d) m] -> w [(d h) m] ; h=4"], {"w": (12, 6)}, {"w": (12, 6)}),
    "split": (["c [m (q|k|v)] -> {q|k|v} [_ m]"], {"c": (6, 12)}, dict.fromkeys("qkv", (4, 6))),
    "join": (["{q|k|v} [_ m] -> c [(q|k|v) m]"], {"q": (8, 6), "k": (2, 6), "v": (2, 6)}, {"c": (12, 6)}),
    "interleaved": (["{g|u} [f m] -> c [(f (g|u)) m]"], {"g": (6, 4), "u": (6, 4)}, {"c": (12, 4)}),
    "flip": (['w [a b] -> w [a b] ; flip="a b"'], {"w": (4, 6)}, {"w": (4, 6)}),
}


def plan_of(name: str) -> Plan:
    rules, keys, leaves = CASES[name]
    model = Template({leaf: Spec(F4, shape) for leaf, shape in leaves.items()})
    request = PlanRequest(
        tuple(map(Rule, rules)), allow_missing=NamePatterns.of(()), allow_unexpected=NamePatterns.of(())
    )
    plan = make_plan({key: Spec(F4, shape) for key, shape in keys.items()}, model, request, source="test")
    assert plan.ok, str(plan)
    return plan


def apply(blocks: list[Block], tensors: dict[str, np.ndarray], out: np.ndarray) -> np.ndarray:
    """Carry out blocks by strides alone; every element of `out` must be written once."""
    written = np.zeros(out.shape, int)
    for block in blocks:
        (one,) = block.terms
        term = moves(one.index_map, KeyRows(one.keys.numbers, block.leaves.numbers, one.starts, block.starts))
        for place, key in enumerate(one.keys):
            values = view(tensors[key].reshape(-1), int(term.key_starts[place]), term.extents, term.key_strides)
            for memory, source in ((out, values), (written, 1)):
                into = view(memory.reshape(-1), int(term.leaf_starts[place]), term.extents, term.leaf_strides)
                into[...] = source if memory is out else into + 1
    assert (written == 1).all()
    return out


def tensors_of(name: str) -> dict[str, np.ndarray]:
    start, found = 0, {}
    for key, shape in CASES[name][1].items():
        found[key] = np.arange(start, start + math.prod(shape), dtype=F4).reshape(shape)
        start += math.prod(shape)
    return found


def boxes(shape: tuple[int, ...], counts: tuple[int, ...]) -> list[tuple[range, ...]]:
    found = []
    for index in np.ndindex(*counts):
        found.append(
            tuple(range(k * (n // c), (k + 1) * (n // c)) for k, n, c in zip(index, shape, counts, strict=True))
        )
    return found


@given(data=st.data(), name=st.sampled_from(sorted(CASES)))
def test_any_grid_of_any_mapping(data: st.DataObject, name: str):
    plan, tensors = plan_of(name), tensors_of(name)
    for leaf, spec in plan.leaves.items():
        blocks = [block for block in plan.blocks if set(block.leaves) == {leaf}]
        whole = apply(blocks, tensors, np.zeros(spec.shape, F4))
        counts = tuple(data.draw(st.sampled_from([c for c in (1, 2, 3, 4, 6) if n % c == 0])) for n in spec.shape)
        tiles = boxes(spec.shape, counts)
        chosen = data.draw(st.lists(st.sampled_from(tiles), min_size=1, unique=True))
        for grid in BoxGrid.of(chosen):
            cut = [part for block in blocks for part in shard(block, grid) or []]
            memory = apply(cut, tensors, np.zeros(grid.shape, F4))
            for index in np.ndindex(*grid.counts):
                at = zip(index, grid.start, grid.box, strict=True)
                slices = tuple(slice(s + k * n, s + (k + 1) * n) for k, s, n in at)
                np.testing.assert_array_equal(memory[index], whole[slices])


@pytest.mark.parametrize("name", sorted(CASES))
def test_the_whole_leaf_is_one_box(name: str):
    plan, tensors = plan_of(name), tensors_of(name)
    for leaf, spec in plan.leaves.items():
        blocks = [block for block in plan.blocks if set(block.leaves) == {leaf}]
        grid = BoxGrid((0,) * len(spec.shape), (1,) * len(spec.shape), spec.shape)
        cut = [part for block in blocks for part in shard(block, grid) or []]
        whole = apply(blocks, tensors, np.zeros(spec.shape, F4))
        np.testing.assert_array_equal(apply(cut, tensors, np.zeros(grid.shape, F4)).reshape(spec.shape), whole)


def test_boxes_side_by_side_are_read_as_one():
    """Rows over four devices: one map with a loop over the devices, not four maps."""
    (block,) = plan_of("stack").blocks
    grids = BoxGrid.of(boxes((4, 4, 6), (1, 4, 1)))
    assert grids == [BoxGrid((0, 0, 0), (1, 4, 1), (4, 1, 6))]
    assert len(shard(block, grids[0]) or []) == 1


def test_boxes_that_form_no_grid_stand_alone():
    tiles = boxes((4, 6), (2, 2))
    assert len(BoxGrid.of([tiles[0], tiles[3]])) == 2
    assert len(BoxGrid.of([tiles[0], tiles[1], tiles[0]])) == 1
