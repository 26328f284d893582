"""Blocks as strides: where in a file's tensor and where in a leaf's memory the elements of every place lie."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bridge._values import Record
from bridge.mapping.block import Block
from bridge.mapping.indexmap import Shape, row_major, strided
from bridge.mapping.keys import Keys
from bridge.mapping.places import Places

if TYPE_CHECKING:
    import numpy.typing as npt


class Moves(Record):
    """One term of a block over C-contiguous memory, in elements.

    All places share `extents` and the strides of tensor and leaf; place `i` starts at `key_starts[i]` in the tensor of
    `keys[i]` and at `leaf_starts[i]` in the leaf.
    """

    keys: Keys
    extents: Shape
    key_strides: Shape
    leaf_strides: Shape
    key_starts: npt.NDArray[np.int64]
    leaf_starts: npt.NDArray[np.int64]

    @property
    def count(self) -> int:
        """Elements of one place."""
        count = 1
        for extent in self.extents:
            count *= extent
        return count


def moves(block: Block) -> list[Moves]:
    """The terms of a block."""
    found: list[Moves] = []
    for term in block.terms:
        index_map = term.index_map
        extents, key, leaf = strided(index_map)
        found.append(
            Moves(
                term.keys,
                extents,
                key.strides,
                leaf.strides,
                _offsets(term.starts, index_map.key_shape),
                _offsets(block.starts, index_map.leaf_shape),
            )
        )
    return found


def _offsets(starts: Places, shape: Shape) -> npt.NDArray[np.int64]:
    """Where each start lies in a C-contiguous array of `shape`."""
    if not shape:
        return np.zeros(len(starts), np.int64)
    return starts.matrix @ np.array(row_major(shape), np.int64)


def view(flat: np.ndarray, start: int, extents: Shape, strides: Shape) -> np.ndarray:
    """Elements of flat memory as an array of `extents`; `start` and `strides` in elements."""
    steps = tuple(n * flat.dtype.itemsize for n in strides)
    # Not as_strided: numpy's array interface has no name for float8_e5m2.
    return np.ndarray(extents, flat.dtype, flat.view(np.uint8), start * flat.dtype.itemsize, steps)
