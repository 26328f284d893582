"""A plan's blocks, layer by layer: which elements of which keys one layer of a stack has in its leaves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from typing import NamedTuple

import numpy as np

from bridge.mapping.arrays import Numbers
from bridge.mapping.block import Block
from bridge.mapping.indexmap import AxisLoop, IndexMap

_MOST = 1 << 16  # layers that one tensor holds


class LayerElements(NamedTuple):
    """Elements of a key in a leaf of one layer: `index_map` is to the leaf without the axes of the stack."""

    leaf: str
    key: str
    index_map: IndexMap
    scale: float | int
    add: float | int
    term: int


class Positions(NamedTuple):
    """Places along an axis of a leaf, and those along the axis of the key that they are."""

    key_axis: int
    leaf: Numbers
    key: Numbers


def pieces_of(
    blocks: Iterable[Block], depths: Mapping[str, int | None]
) -> dict[str, dict[tuple[int, ...], list[LayerElements]]]:
    """Pieces by leaf and index in the stack.

    **Arguments:**

    - `depths`: of each leaf, how many axes in front are a stack's; `None` where the blocks have to say it.
    """
    found: dict[str, dict[tuple[int, ...], list[LayerElements]]] = {}
    for block in sorted(blocks, key=lambda block: block.tie):
        leaves = list(block.leaves)
        for row, leaf in enumerate(leaves):
            if leaf not in depths or (block.tie and leaf in found):
                continue
            for number, (key, index_map) in enumerate(block.maps(row)):
                depth = depths[leaf]
                if depth is None:
                    depth = _stacked(index_map)
                for index, own in unrolled(index_map, depth):
                    piece = LayerElements(leaf, key, own, block.scale, block.add, number)
                    found.setdefault(leaf, {}).setdefault(index, []).append(piece)
    return found


def _stacked(index_map: IndexMap) -> int:
    """How many axes in front a tensor has only one place of."""
    moved = {loop.leaf_axis for loop in index_map.loops if loop.extent > 1}
    depth = 0
    while depth < len(index_map.leaf_shape) and depth not in moved and index_map.leaf_shape[depth] > 1:
        depth += 1
    return depth


def unrolled(index_map: IndexMap, depth: int) -> Iterator[tuple[tuple[int, ...], IndexMap]]:
    """The map of each layer that a tensor fills, by its place along the axes of the stack."""
    ahead = [loop for loop in index_map.loops if loop.leaf_axis < depth]
    rest = tuple(
        AxisLoop(a.extent, a.key_axis, a.key_step, a.leaf_axis - depth, a.leaf_step)
        for a in index_map.loops
        if a.leaf_axis >= depth
    )
    extents = [range(loop.extent) for loop in ahead]
    if np.prod([loop.extent for loop in ahead], dtype=float) > _MOST:
        return
    for steps in product(*extents):
        key_start, index = list(index_map.key_start), list(index_map.leaf_start[:depth])
        for loop, step in zip(ahead, steps, strict=True):
            key_start[loop.key_axis] += step * loop.key_step
            index[loop.leaf_axis] += step * loop.leaf_step
        shapes = index_map.key_shape, index_map.leaf_shape[depth:]
        yield tuple(index), IndexMap(*shapes, tuple(key_start), index_map.leaf_start[depth:], rest)


def positions(index_map: IndexMap, leaf_axis: int) -> Positions | None:
    """What places along one axis of the leaf are in the key; `None` where they lie along several of its axes."""
    loops = [loop for loop in index_map.loops if loop.leaf_axis == leaf_axis and loop.extent > 1]
    axes = {loop.key_axis for loop in loops}
    if len(axes) != 1:
        return None
    (key_axis,) = axes
    leaf, key = np.array([index_map.leaf_start[leaf_axis]]), np.array([index_map.key_start[key_axis]])
    for loop in loops:
        steps = np.arange(loop.extent)
        leaf = (leaf[:, None] + steps * loop.leaf_step).reshape(-1)
        key = (key[:, None] + steps * loop.key_step).reshape(-1)
    return Positions(key_axis, leaf, key)
