"""Bytes that a file and a leaf hold in the same order: read straight where they belong.

Everything here is done for all places of a block at once: a checkpoint may have 100,000 tensors of a kilobyte.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

from bridge.format.table import Numbers, Table
from bridge.stream.chunk import CHUNK
from bridge.stream.gaps import worth_skipping
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


class Runs(NamedTuple):
    """Runs of bytes, column by column; leaves, files and keys by number.

    Run `n` is `lengths[n]` bytes of a key, from `offsets[n]` on in its file, and goes to `starts[n]` of its leaf.
    """

    leaves: Column
    files: Column
    offsets: Column
    starts: Column
    lengths: Column
    keys: Column

    def at(self, chosen: Column | npt.NDArray[np.bool_] | slice) -> Runs:
        """Some of them."""
        return Runs(*(column[chosen] for column in self))

    def rows(self) -> Iterator[tuple[int, int, int, int, int, int]]:
        """One by one."""
        return zip(*(column.tolist() for column in self), strict=True)


def runs(moves: Moves, itemsize: int, specs: Table, ranks: Numbers) -> Runs:
    """Contiguous moves as runs; `ranks` are those of the files among all read."""
    numbers = moves.keys
    outer, length = _split(moves)
    grid = np.indices(outer).reshape(len(outer), -1) if outer else np.zeros((0, 1), np.int64)
    in_key = np.array(moves.key_strides[: len(outer)], np.int64) @ grid
    in_leaf = np.array(moves.leaf_strides[: len(outer)], np.int64) @ grid
    each, count = grid.shape[1], len(numbers)
    return Runs(
        np.repeat(moves.leaves, each),
        np.repeat(ranks[specs.ranks[numbers]], each),
        (specs.offsets[numbers][:, None] + (moves.key_starts[:, None] + in_key) * itemsize).ravel(),
        ((moves.leaf_starts[:, None] + in_leaf) * itemsize).ravel(),
        np.full(count * each, length * itemsize),
        np.repeat(numbers, each),
    )


def is_contiguous(moves: Moves, itemsize: int) -> bool:
    """Whether leaves get their bits in runs long enough to read one by one."""
    outer, length = _split(moves)
    if length == 0 or not outer or length * itemsize >= _RUN:
        return length > 0
    return worth_skipping((moves.key_strides[len(outer) - 1] - length) * itemsize, length * itemsize)


def _split(moves: Moves) -> tuple[tuple[int, ...], int]:
    """The outer extents, and how many elements lie as one run in both arrays below them."""
    if moves.elements == 0:
        return (), 0
    if not moves.extents:
        return (), 1
    if moves.key_strides[-1] != 1 or moves.leaf_strides[-1] != 1:
        return moves.extents, 1
    return moves.extents[:-1], moves.extents[-1]


def reads(
    found: Sequence[Runs], leaves: Sequence[str], keys: Sequence[str], files: Sequence[str], most: int
) -> Iterator[Read | Scatter]:
    """All runs in the order of the files, neighbours read together, `most` bytes at once; names by number."""
    runs = found[0] if len(found) == 1 else Runs(*map(np.concatenate, zip(*found, strict=True)))
    if not _sorted(runs):
        runs = runs.at(np.lexsort((runs.offsets, runs.files)))
    runs = _merged(runs)
    alone = np.ones(len(runs.leaves), bool)
    for first, stop in _dense(runs):
        from bridge.stream.scatter import scattered  # for checkpoints of many short tensors

        alone[first:stop] = False
        part = runs.at(slice(first, stop))
        at = files[int(part.files[0])], int(part.offsets[0]), keys[int(part.keys[0])]
        yield scattered(at, leaves, part.leaves, part.offsets, part.starts, part.lengths)
    yield from _singly(runs if alone.all() else runs.at(alone), leaves, keys, files, most)


def _sorted(runs: Runs) -> bool:
    """Whether runs stand in the order of the files already, as those of one leaf mostly do."""
    rank, offset = runs.files, runs.offsets
    later = (rank[1:] > rank[:-1]) | ((rank[1:] == rank[:-1]) & (offset[1:] >= offset[:-1]))
    return bool(later.all())


def _merged(runs: Runs) -> Runs:
    """Runs that touch both in the file and in the leaf, as one."""
    new = np.ones(len(runs.leaves), bool)
    new[1:] = (
        (runs.leaves[1:] != runs.leaves[:-1]) | _apart(runs) | (runs.starts[1:] != runs.starts[:-1] + runs.lengths[:-1])
    )
    heads = np.flatnonzero(new)
    return runs.at(heads)._replace(lengths=np.add.reduceat(runs.lengths, heads))


def _apart(runs: Runs) -> npt.NDArray[np.bool_]:
    """Whether each run but the first does not follow the one before it in the file."""
    return (runs.files[1:] != runs.files[:-1]) | (runs.offsets[1:] != runs.offsets[:-1] + runs.lengths[:-1])


def _dense(runs: Runs) -> Iterator[tuple[int, int]]:
    """Stretches of many short runs that follow one another in a file, each of about a chunk: first and stop."""
    short = runs.lengths < _RUN
    if not short.any():
        return
    new = np.ones(len(short), bool)
    new[1:] = _apart(runs) | (short[1:] != short[:-1])
    heads = np.flatnonzero(new)
    stretch = np.cumsum(new) - 1
    chunk = (runs.offsets - runs.offsets[heads][stretch]) // (CHUNK - _RUN)
    new[1:] |= chunk[1:] != chunk[:-1]
    heads = np.flatnonzero(new)
    stops = np.append(heads[1:], len(short))
    chosen = short[heads] & (stops - heads >= _DENSE)
    yield from zip(heads[chosen].tolist(), stops[chosen].tolist(), strict=True)


def _singly(runs: Runs, leaves: Sequence[str], keys: Sequence[str], files: Sequence[str], most: int) -> Iterator[Read]:
    """Runs that are read into their places, one by one or several as the buffers of one read."""
    pending: list[tuple[str, int, int]] = []
    file, first, stop, nbytes, key = -1, 0, -1, 0, -1
    for who, where, at, into, count, which in runs.rows():
        if pending and (where != file or at != stop or nbytes + count > most or len(pending) == _VECTOR):
            yield Read(files[file], first, keys[key], pending, nbytes)
            pending = []
        leaf = leaves[who]
        if count > most:
            for done in range(0, count, most):
                part = (leaf, into + done, into + min(done + most, count))
                yield Read(files[where], at + done, keys[which], [part], part[2] - part[1])
            continue
        if not pending:
            file, first, key, nbytes = where, at, which, 0
        pending.append((leaf, into, into + count))
        stop, nbytes = at + count, nbytes + count
    if pending:
        yield Read(files[file], first, keys[key], pending, nbytes)
