"""Blocks as strides: where in a file's tensor and where in a leaf's memory the elements of every row lie."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bridge.mapping.arrays import Numbers
from bridge.mapping.block import Matrix
from bridge.mapping.indexmap import IndexMap, Shape, row_major, strided

if TYPE_CHECKING:
    import numpy.typing as npt


class Moves(NamedTuple):
    """Rows of one term of a block over flat memory, in elements; keys and leaves by number.

    All rows share `extents` and the strides of tensor and leaf; row `i` starts at `key_starts[i]` in the tensor of
    `keys[i]` and at `leaf_starts[i]` in the memory of `leaves[i]`.
    """

    keys: Numbers
    leaves: Numbers
    extents: Shape
    key_strides: Shape
    leaf_strides: Shape
    key_starts: npt.NDArray[np.int64]
    leaf_starts: npt.NDArray[np.int64]

    @property
    def elements(self) -> int:
        """Elements of one row."""
        count = 1
        for extent in self.extents:
            count *= extent
        return count


class Change(NamedTuple):
    """What becomes of values on their way: `values * scale + add`, or nothing where a tie compares them."""

    scale: float | int = 1
    add: float | int = 0
    tie: bool = False

    @property
    def is_none(self) -> bool:
        """Whether values are copied, and cast at most."""
        return self.scale == 1 and self.add == 0 and not self.tie


class Rows(NamedTuple):
    """Rows of one term of a block: keys and leaves by number, and where the map starts in each."""

    keys: Numbers
    leaves: Numbers
    key_starts: Matrix
    leaf_starts: Matrix

    @classmethod
    def joined(cls, parts: Sequence[Rows]) -> Rows:
        """One part after the other."""
        return parts[0] if len(parts) == 1 else cls(*map(np.concatenate, zip(*parts, strict=True)))

    def at(self, rows: Numbers) -> Rows:
        """Some of them."""
        return Rows(*(column[rows] for column in self))


def moves(index_map: IndexMap, rows: Rows) -> Moves:
    """Rows that all have one map, over C-contiguous memory."""
    extents, key, leaf = strided(index_map)
    in_key = _offsets(rows.key_starts, row_major(index_map.key_shape))
    in_leaf = _offsets(rows.leaf_starts, row_major(index_map.leaf_shape))
    return Moves(rows.keys, rows.leaves, extents, key.strides, leaf.strides, in_key, in_leaf)


def _offsets(starts: Matrix, strides: Shape) -> npt.NDArray[np.int64]:
    """Where each start lies in memory of these strides."""
    return starts @ np.array(strides, np.int64)


def view(flat: np.ndarray, start: int, extents: Shape, strides: Shape) -> np.ndarray:
    """Elements of flat memory as an array of `extents`; `start` and `strides` in elements."""
    steps = tuple(n * flat.dtype.itemsize for n in strides)
    # Not as_strided: numpy's array interface has no name for float8_e5m2.
    return np.ndarray(extents, flat.dtype, flat.view(np.uint8), start * flat.dtype.itemsize, steps)
