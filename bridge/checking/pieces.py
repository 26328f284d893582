"""A plan's blocks, layer by layer: which elements of which keys one layer of a stack has in its leaves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from typing import NamedTuple

import numpy as np

from bridge.mapping.arrays import Numbers
from bridge.mapping.block import Block
from bridge.mapping.indexmap import Atom, IndexMap

_MOST = 1 << 16  # layers that one tensor holds


class Piece(NamedTuple):
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
) -> dict[str, dict[tuple[int, ...], list[Piece]]]:
    """Pieces by leaf and index in the stack.

    **Arguments:**

    - `depths`: of each leaf, how many axes in front are a stack's; `None` where the blocks have to say it.
    """
    found: dict[str, dict[tuple[int, ...], list[Piece]]] = {}
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
                    piece = Piece(leaf, key, own, block.scale, block.add, number)
                    found.setdefault(leaf, {}).setdefault(index, []).append(piece)
    return found


def _stacked(index_map: IndexMap) -> int:
    """How many axes in front a tensor has only one place of."""
    moved = {atom.leaf_axis for atom in index_map.atoms if atom.extent > 1}
    depth = 0
    while depth < len(index_map.leaf_shape) and depth not in moved and index_map.leaf_shape[depth] > 1:
        depth += 1
    return depth


def unrolled(index_map: IndexMap, depth: int) -> Iterator[tuple[tuple[int, ...], IndexMap]]:
    """The map of each layer that a tensor fills, by its place along the axes of the stack."""
    ahead = [atom for atom in index_map.atoms if atom.leaf_axis < depth]
    rest = tuple(
        Atom(a.extent, a.key_axis, a.key_step, a.leaf_axis - depth, a.leaf_step)
        for a in index_map.atoms
        if a.leaf_axis >= depth
    )
    extents = [range(atom.extent) for atom in ahead]
    if np.prod([atom.extent for atom in ahead], dtype=float) > _MOST:
        return
    for steps in product(*extents):
        key_start, index = list(index_map.key_start), list(index_map.leaf_start[:depth])
        for atom, step in zip(ahead, steps, strict=True):
            key_start[atom.key_axis] += step * atom.key_step
            index[atom.leaf_axis] += step * atom.leaf_step
        shapes = index_map.key_shape, index_map.leaf_shape[depth:]
        yield tuple(index), IndexMap(*shapes, tuple(key_start), index_map.leaf_start[depth:], rest)


def positions(index_map: IndexMap, leaf_axis: int) -> Positions | None:
    """What places along one axis of the leaf are in the key; `None` where they lie along several of its axes."""
    atoms = [atom for atom in index_map.atoms if atom.leaf_axis == leaf_axis and atom.extent > 1]
    axes = {atom.key_axis for atom in atoms}
    if len(axes) != 1:
        return None
    (key_axis,) = axes
    leaf, key = np.array([index_map.leaf_start[leaf_axis]]), np.array([index_map.key_start[key_axis]])
    for atom in atoms:
        steps = np.arange(atom.extent)
        leaf = (leaf[:, None] + steps * atom.leaf_step).reshape(-1)
        key = (key[:, None] + steps * atom.key_step).reshape(-1)
    return Positions(key_axis, leaf, key)
