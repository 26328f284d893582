"""Bytes that a file and a leaf hold in the same order: read straight where they belong.

Everything here is done for all places of a block at once: a checkpoint may have 100,000 tensors of a kilobyte.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from bridge._values import NamedTuple, Record
from bridge.format.table import Numbers, Table
from bridge.mapping.block import Block
from bridge.mapping.keys import Keys
from bridge.stream.chunk import CHUNK
from bridge.stream.gaps import skipped
from bridge.stream.moves import Moves

if TYPE_CHECKING:
    import numpy.typing as npt

    from bridge.stream.scatter import Scatter

_RUN = 16 << 10  # shorter runs are cheaper to copy out of scratch than to read one by one
_VECTOR = 512  # buffers of one read: below every system's limit
_DENSE = 16  # fewer short runs side by side are read one by one all the same

Column: TypeAlias = "npt.NDArray[np.int64]"


class Read(NamedTuple):
    """Neighbouring bytes of a file, read at once into leaves, where they may lie apart. `key` is the first one's.

    `parts` are, in the order of the file, a leaf, the first byte in it and one past the last.
    """

    file: str
    offset: int
    key: str
    parts: list[tuple[str, int, int]]
    nbytes: int


class Runs(Record):
    """Runs of bytes that go to one leaf: where they start in which file and in the leaf, how long, of which key."""

    leaf: str
    files: Numbers
    offsets: Column
    starts: Column
    lengths: Column
    keys: Keys
    places: Numbers


def located(specs: Table, keys: Keys) -> Numbers:
    """The numbers in `specs` of keys that a plan knows by those of its own table."""
    if keys.table.names is specs.names:
        return keys.numbers
    return np.array([specs.numbers[key] for key in keys], np.intp)


def runs(block: Block, moves: Moves, specs: Table, ranks: Numbers) -> Runs:
    """A straight block as runs; `ranks` are those of the files among all that are read."""
    itemsize = moves.keys.spec(0).dtype.itemsize
    numbers = located(specs, moves.keys)
    outer, length = _split(moves)
    grid = np.indices(outer).reshape(len(outer), -1) if outer else np.zeros((0, 1), np.int64)
    in_key = np.array(moves.key_strides[: len(outer)], np.int64) @ grid
    in_leaf = np.array(moves.leaf_strides[: len(outer)], np.int64) @ grid
    each, count = grid.shape[1], len(numbers)
    return Runs(
        block.leaf,
        np.repeat(ranks[specs.ranks[numbers]], each),
        (specs.offsets[numbers][:, None] + (moves.key_starts[:, None] + in_key) * itemsize).ravel(),
        ((moves.leaf_starts[:, None] + in_leaf) * itemsize).ravel(),
        np.full(count * each, length * itemsize),
        moves.keys,
        np.repeat(np.arange(count), each),
    )


def is_straight(block: Block, moves: Moves, dtype: np.dtype) -> bool:
    """Whether a leaf of `dtype` gets the block's bytes as they are, in runs that are long enough to read one by one."""
    if block.valued or any(spec.dtype != dtype for spec, _ in moves.keys.kinds()):
        return False
    outer, length = _split(moves)
    if length == 0 or not outer or length * dtype.itemsize >= _RUN:
        return length > 0
    return skipped((moves.key_strides[len(outer) - 1] - length) * dtype.itemsize, length * dtype.itemsize)


def _split(moves: Moves) -> tuple[tuple[int, ...], int]:
    """The outer extents, and how many elements lie as one run in both arrays below them."""
    if moves.count == 0:
        return (), 0
    if not moves.extents:
        return (), 1
    if moves.key_strides[-1] != 1 or moves.leaf_strides[-1] != 1:
        return moves.extents, 1
    return moves.extents[:-1], moves.extents[-1]


def reads(found: Sequence[Runs], files: Sequence[str], most: int) -> Iterator[Read | Scatter]:
    """All runs in the order of the files, neighbours read together, `most` bytes at once."""
    if not found:
        return
    owner = np.repeat(np.arange(len(found)), [len(part.offsets) for part in found])
    rank, offset, start, length, place = (
        np.concatenate([getattr(part, name) for part in found])
        for name in ("files", "offsets", "starts", "lengths", "places")
    )
    if not _sorted(rank, offset):
        order = np.lexsort((offset, rank))
        owner, rank, offset, start, length, place = (a[order] for a in (owner, rank, offset, start, length, place))
    owner, rank, offset, start, length, place = _merged(owner, rank, offset, start, length, place)
    alone = np.ones(len(owner), bool)
    for first, stop in _dense(rank, offset, length):
        from bridge.stream.scatter import scattered  # for checkpoints of many short tensors

        alone[first:stop] = False
        part = slice(first, stop)
        keys = found[int(owner[first])].keys
        at = files[int(rank[first])], int(offset[first]), keys[int(place[first])]
        yield scattered(at, [one.leaf for one in found], owner[part], offset[part], start[part], length[part])
    columns = (column[alone].tolist() for column in (owner, rank, offset, start, length, place))
    yield from _singly(zip(*columns, strict=True), found, files, most)


def _sorted(rank: Numbers, offset: Column) -> bool:
    """Whether runs stand in the order of the files already, as those of one leaf mostly do."""
    later = (rank[1:] > rank[:-1]) | ((rank[1:] == rank[:-1]) & (offset[1:] >= offset[:-1]))
    return bool(later.all())


def _dense(rank: Numbers, offset: Column, length: Column) -> Iterator[tuple[int, int]]:
    """Stretches of many short runs that follow one another in a file, each of about a chunk: first and stop."""
    short = length < _RUN
    new = np.ones(len(rank), bool)
    new[1:] = (rank[1:] != rank[:-1]) | (offset[1:] != offset[:-1] + length[:-1]) | (short[1:] != short[:-1])
    heads = np.flatnonzero(new)
    stretch = np.cumsum(new) - 1
    chunk = (offset - offset[heads][stretch]) // (CHUNK - _RUN)
    new[1:] |= chunk[1:] != chunk[:-1]
    heads = np.flatnonzero(new)
    stops = np.append(heads[1:], len(rank))
    chosen = short[heads] & (stops - heads >= _DENSE)
    yield from zip(heads[chosen].tolist(), stops[chosen].tolist(), strict=True)


def _singly(
    rows: Iterable[tuple[int, int, int, int, int, int]], found: Sequence[Runs], files: Sequence[str], most: int
) -> Iterator[Read]:
    """Runs that are read into their places, one by one or several as the buffers of one read."""
    pending: list[tuple[str, int, int]] = []
    file, first, stop, nbytes, key = -1, 0, -1, 0, ""
    for who, where, at, into, count, which in rows:
        if pending and (where != file or at != stop or nbytes + count > most or len(pending) == _VECTOR):
            yield Read(files[file], first, key, pending, nbytes)
            pending = []
        leaf = found[who].leaf
        if count > most:
            for done in range(0, count, most):
                part = (leaf, into + done, into + min(done + most, count))
                yield Read(files[where], at + done, found[who].keys[which], [part], part[2] - part[1])
            continue
        if not pending:
            file, first, key, nbytes = where, at, found[who].keys[which], 0
        pending.append((leaf, into, into + count))
        stop, nbytes = at + count, nbytes + count
    if pending:
        yield Read(files[file], first, key, pending, nbytes)


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
