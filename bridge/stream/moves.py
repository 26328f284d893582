"""Blocks as strides: where in a file's tensor and where in a leaf's memory the elements of every place lie."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from bridge._values import Record
from bridge.mapping.block import Block, Term
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
    return [_moves(term, block.starts) for term in block.terms]


def joined(blocks: Sequence[Block]) -> Moves:
    """Blocks of one term, which have the same map, as one: the places of the first block, then those of the second."""
    terms = [block.terms[0] for block in blocks]
    keys, starts = Keys.joined([term.keys for term in terms]), Places.joined([term.starts for term in terms])
    return _moves(Term(terms[0].index_map, keys, starts), Places.joined([block.starts for block in blocks]))


def _moves(term: Term, leaf_starts: Places) -> Moves:
    extents, key, leaf = strided(term.index_map)
    in_key = _offsets(term.starts, term.index_map.key_shape)
    in_leaf = _offsets(leaf_starts, term.index_map.leaf_shape)
    return Moves(term.keys, extents, key.strides, leaf.strides, in_key, in_leaf)


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
