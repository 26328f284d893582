"""`IndexMap`: which elements of a tensor are which elements of a leaf, as numbers.

The one form that everything is computed from: the proof, the bytes to read, the views to copy, the shards, the way
back. A map is a set of *loops*. Each runs over its extent and moves both arrays along one axis each, by a fixed step.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import NamedTuple

import numpy as np

from bridge.mapping.arrays import Shape as Shape
from bridge.mapping.pattern import IndexColumns, Mask, Matrix

_MAX_AXES, MAX_COUNT = 64, 2**59 - 1  # of an array, with elements of 16 bytes; an extent of 0 counts as 1


@lru_cache(maxsize=1024)
def oversized(shape: Shape) -> str | None:
    """Why no array has `shape`; `None` where one has. A file may say any shape that has no elements."""
    if len(shape) > _MAX_AXES:
        return f"{len(shape)} axes, where an array has at most {_MAX_AXES}: save it reshaped"
    if prod(max(extent, 1) for extent in shape) > MAX_COUNT:
        return "extents that no array can have, though no elements: leave it out, or save it reshaped"
    return None


class AxisLoop(NamedTuple):
    """`extent` steps along axis `key_axis` of the tensor and along axis `leaf_axis` of the leaf."""

    extent: int
    key_axis: int
    key_step: int
    leaf_axis: int
    leaf_step: int


class IndexMap:
    """A bijection between a box of a tensor and a box of a leaf.

    Element `a` (one number per loop, `0 <= a[i] < loops[i].extent`) lies in the tensor at
    `key_start[j] + sum(a[i] * key_step[i])` over the loops of axis `j`, and in the leaf likewise.
    """

    __slots__ = ("key_shape", "key_start", "leaf_shape", "leaf_start", "loops")

    def __init__(
        self, key_shape: Shape, leaf_shape: Shape, key_start: Shape, leaf_start: Shape, loops: tuple[AxisLoop, ...]
    ) -> None:
        self.key_shape, self.leaf_shape = key_shape, leaf_shape
        self.key_start, self.leaf_start = key_start, leaf_start
        self.loops = loops

    def _all(self) -> tuple[object, ...]:
        return self.key_shape, self.leaf_shape, self.key_start, self.leaf_start, self.loops

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IndexMap) and self._all() == other._all()

    def __hash__(self) -> int:
        return hash(self._all())

    def __repr__(self) -> str:
        return f"IndexMap{self._all()}"

    @property
    def count(self) -> int:
        """How many elements are mapped."""
        return prod(loop.extent for loop in self.loops)

    @property
    def back(self) -> IndexMap:
        """The same map with tensor and leaf in each other's place."""
        loops = tuple(AxisLoop(a.extent, a.leaf_axis, a.leaf_step, a.key_axis, a.key_step) for a in self.loops)
        return IndexMap(self.leaf_shape, self.key_shape, self.leaf_start, self.key_start, loops)

    @property
    def whole_key(self) -> bool:
        """Whether every element of the tensor is mapped."""
        return self.count == prod(self.key_shape)


class Strided:
    """One array's view of a map: an offset and a stride per axis, in elements, over common `extents`."""

    __slots__ = ("offset", "strides")

    def __init__(self, offset: int, strides: Shape) -> None:
        self.offset, self.strides = offset, strides


def row_major(shape: Shape) -> Shape:
    """The strides, in elements, of a C-contiguous array."""
    strides = [1] * len(shape)
    for axis in range(len(shape) - 2, -1, -1):
        strides[axis] = strides[axis + 1] * shape[axis + 1]
    return tuple(strides)


def strided(index_map: IndexMap, key_strides: Shape | None = None) -> tuple[Shape, Strided, Strided]:
    """The map over two C-contiguous arrays: common extents, the tensor's view, the leaf's view. `key_strides` are those
    of the tensor where it is stored otherwise.

    Atoms are in the tensor's order, outermost first; neighbours that both arrays hold as one run are joined.
    """
    leaf_strides = row_major(index_map.leaf_shape)
    key_strides = row_major(index_map.key_shape) if key_strides is None else key_strides
    key_offset = sum(a * b for a, b in zip(index_map.key_start, key_strides, strict=True))
    leaf_offset = sum(a * b for a, b in zip(index_map.leaf_start, leaf_strides, strict=True))
    loops = sorted(
        (-loop.key_step * key_strides[loop.key_axis], loop.leaf_step * leaf_strides[loop.leaf_axis], loop.extent)
        for loop in index_map.loops
        if loop.extent != 1
    )
    joined: list[tuple[int, int, int]] = []
    for key_stride, leaf_stride, extent in ((-k, lf, n) for k, lf, n in loops):
        if joined and joined[-1][0] == key_stride * extent and joined[-1][1] == leaf_stride * extent:
            joined[-1] = (key_stride, leaf_stride, joined[-1][2] * extent)
        else:
            joined.append((key_stride, leaf_stride, extent))
    extents = tuple(n for _, _, n in joined)
    key, leaf = tuple(k for k, _, _ in joined), tuple(lf for _, lf, _ in joined)
    return extents, Strided(key_offset, key), Strided(leaf_offset, leaf)


class BoundIndex:
    """A factor of an axis that is one number for each tensor, because the name on the other side holds its index."""

    __slots__ = ("axis", "extent", "on_leaf", "start", "step", "variable")

    def __init__(self, variable: str, on_leaf: bool, axis: int, step: int, start: int, extent: int) -> None:
        self.variable, self.on_leaf, self.axis, self.step = variable, on_leaf, axis, step
        self.start, self.extent = start, extent


class Starts:
    """Where a map starts in its tensor and in its leaf, row by row; whether each index lies in its axis."""

    __slots__ = ("inside", "keys", "leaves")

    def __init__(self, keys: Matrix, leaves: Matrix, inside: Mask) -> None:
        self.keys, self.leaves, self.inside = keys, leaves, inside


class ParametricMap:
    """One index map for many tensors that differ only in where their indices put them."""

    __slots__ = ("bound", "index_map")

    def __init__(self, index_map: IndexMap, bound: tuple[BoundIndex, ...]) -> None:
        self.index_map, self.bound = index_map, bound

    def starts(self, columns: IndexColumns, rows: int) -> Starts:
        """Where the map starts, by the positions of the indices."""
        one = self.index_map
        keys, leaves = np.empty((rows, len(one.key_start)), np.int64), np.empty((rows, len(one.leaf_start)), np.int64)
        keys[:], leaves[:] = one.key_start, one.leaf_start
        inside = np.ones(rows, bool)
        for bound in self.bound:
            values = columns[bound.variable]
            inside &= values < bound.extent
            (leaves if bound.on_leaf else keys)[:, bound.axis] += bound.start + bound.step * values
        return Starts(keys, leaves, inside)


@lru_cache(maxsize=4096)
def stacked(key_shape: Shape, leaf_shape: Shape, variables: tuple[str, ...]) -> ParametricMap | None:
    """The map of a rule without axes: the tensor as it is, at one place of the leading axes; `None` where the shapes do
    not agree.
    """
    depth = len(variables)
    if leaf_shape[depth:] != key_shape or len(leaf_shape) < depth:
        return None
    loops = tuple(AxisLoop(n, axis, 1, axis + depth, 1) for axis, n in enumerate(key_shape))
    bound = tuple(BoundIndex(v, True, axis, 1, 0, leaf_shape[axis]) for axis, v in enumerate(variables))
    return ParametricMap(IndexMap(key_shape, leaf_shape, (0,) * len(key_shape), (0,) * len(leaf_shape), loops), bound)
