"""Bytes that a file and a leaf hold in the same order: read straight where they belong.

Everything here is done for all places of a block at once: a checkpoint may have 100,000 tensors of a kilobyte.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bridge.format.spec import TensorSpec
from bridge.mapping.block import Block
from bridge.stream.moves import Moves

CHUNK = 4 << 20
"""Bytes of one read: any size from 1 to 64 MiB is as fast, and scratch is one chunk a thread."""
_RUN = 16 << 10  # shorter runs are cheaper to copy out of scratch than to read one by one
_VECTOR = 512  # buffers of one read: below every system's limit


class Read(NamedTuple):
    """Neighbouring bytes of a file, read at once into leaves, where they may lie apart. `key` is the first one's.

    `parts` are, in the order of the file, a leaf, the first byte in it and one past the last.
    """

    file: str
    offset: int
    key: str
    parts: list[tuple[str, int, int]]
    nbytes: int


@dataclass(frozen=True, slots=True)
class Runs:
    """Runs of bytes that go to one leaf: where they start in which file and in the leaf, how long, of which key."""

    leaf: str
    files: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    keys: Sequence[str]
    places: npt.NDArray[np.int64]


def runs(block: Block, moves: Moves, specs: Mapping[str, TensorSpec], files: Mapping[str, int]) -> Runs:
    """A straight block as runs; `files` numbers the files."""
    itemsize = specs[moves.keys[0]].dtype.itemsize
    found = [specs[key] for key in moves.keys]
    outer, length = _split(moves)
    grid = np.indices(outer).reshape(len(outer), -1) if outer else np.zeros((0, 1), np.int64)
    in_key = np.array(moves.key_strides[: len(outer)], np.int64) @ grid
    in_leaf = np.array(moves.leaf_strides[: len(outer)], np.int64) @ grid
    data = np.array([spec.offset for spec in found], np.int64)
    ranks = np.array([files[spec.file] for spec in found], np.int64)
    each = grid.shape[1]
    return Runs(
        block.leaf,
        np.repeat(ranks, each),
        (data[:, None] + (moves.key_starts[:, None] + in_key) * itemsize).ravel(),
        ((moves.leaf_starts[:, None] + in_leaf) * itemsize).ravel(),
        np.full(len(data) * each, length * itemsize),
        moves.keys,
        np.repeat(np.arange(len(data)), each),
    )


def is_straight(block: Block, moves: Moves, specs: Mapping[str, TensorSpec], dtype: np.dtype) -> bool:
    """Whether a leaf of `dtype` gets the block's bytes as they are, in runs that are long enough to read one by one."""
    if block.valued or any(specs[key].dtype != dtype for key in moves.keys):
        return False
    outer, length = _split(moves)
    return length > 0 and (not outer or length * dtype.itemsize >= _RUN)


def _split(moves: Moves) -> tuple[tuple[int, ...], int]:
    """The outer extents, and how many elements lie as one run in both arrays below them."""
    if moves.count == 0:
        return (), 0
    if not moves.extents:
        return (), 1
    if moves.key_strides[-1] != 1 or moves.leaf_strides[-1] != 1:
        return moves.extents, 1
    return moves.extents[:-1], moves.extents[-1]


def reads(found: Sequence[Runs], files: Sequence[str]) -> Iterator[Read]:
    """All runs in the order of the files, neighbours read together, each read a chunk at most."""
    if not found:
        return
    names = dict(enumerate(files))
    owner = np.repeat(np.arange(len(found)), [len(part.offsets) for part in found])
    rank, offset, start, length, place = (
        np.concatenate([getattr(part, name) for part in found])
        for name in ("files", "offsets", "starts", "lengths", "places")
    )
    order = np.lexsort((offset, rank))
    owner, rank, offset, start, length, place = (a[order] for a in (owner, rank, offset, start, length, place))
    owner, rank, offset, start, length, place = _merged(owner, rank, offset, start, length, place)
    pending: list[tuple[str, int, int]] = []
    file, first, stop, nbytes, key = -1, 0, -1, 0, ""
    rows: Iterable[tuple[int, int, int, int, int, int]] = zip(
        owner.tolist(), rank.tolist(), offset.tolist(), start.tolist(), length.tolist(), place.tolist(), strict=True
    )
    for who, where, at, into, count, which in rows:
        if pending and (where != file or at != stop or nbytes + count > CHUNK or len(pending) == _VECTOR):
            yield Read(names[file], first, key, pending, nbytes)
            pending = []
        leaf = found[who].leaf
        if count > CHUNK:
            for done in range(0, count, CHUNK):
                part = (leaf, into + done, into + min(done + CHUNK, count))
                yield Read(names[where], at + done, found[who].keys[which], [part], part[2] - part[1])
            continue
        if not pending:
            file, first, key, nbytes = where, at, found[who].keys[which], 0
        pending.append((leaf, into, into + count))
        stop, nbytes = at + count, nbytes + count
    if pending:
        yield Read(names[file], first, key, pending, nbytes)


def _merged(*columns: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], ...]:
    """Runs that touch both in the file and in the leaf, as one."""
    owner, rank, offset, start, length, place = columns
    new = np.ones(len(owner), bool)
    new[1:] = (
        (owner[1:] != owner[:-1])
        | (rank[1:] != rank[:-1])
        | (offset[1:] != offset[:-1] + length[:-1])
        | (start[1:] != start[:-1] + length[:-1])
    )
    heads = np.flatnonzero(new)
    total = np.add.reduceat(length, heads)
    return owner[heads], rank[heads], offset[heads], start[heads], total, place[heads]
