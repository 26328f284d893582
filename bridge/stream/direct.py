"""Blocks as strides over flat memory, and the bytes that a file and a leaf hold in the same order: read straight there.

Everything here is done for all rows of a block at once: a checkpoint may have 100,000 tensors of a kilobyte.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from bridge.format.table import Table
from bridge.mapping.arrays import Numbers
from bridge.mapping.block import Matrix
from bridge.mapping.indexmap import IndexMap, Shape, row_major, strided
from bridge.source.bytes import worth_skipping
from bridge.stream.buffers import CHUNK

if TYPE_CHECKING:
    import numpy.typing as npt

    from bridge.stream.scatter import Scatter

_RUN = 16 << 10  # shorter runs are cheaper to copy out of scratch than to read one by one
_VECTOR = 512  # buffers of one read: below every system's limit
_DENSE = 16  # fewer short runs side by side are read one by one all the same

Column: TypeAlias = "npt.NDArray[np.int64]"


class Moves:
    """Rows of one term of a block over flat memory, in elements; keys and leaves by number.

    All rows share `extents` and the strides of tensor and leaf; row `i` starts at `key_starts[i]` in the tensor of
    `keys[i]` and at `leaf_starts[i]` in the memory of `leaves[i]`.
    """

    __slots__ = ("extents", "key_starts", "key_strides", "keys", "leaf_starts", "leaf_strides", "leaves")

    def __init__(
        self,
        keys: Numbers,
        leaves: Numbers,
        extents: Shape,
        key_strides: Shape,
        leaf_strides: Shape,
        key_starts: npt.NDArray[np.int64],
        leaf_starts: npt.NDArray[np.int64],
    ) -> None:
        self.keys, self.leaves, self.extents, self.key_strides = keys, leaves, extents, key_strides
        self.leaf_strides, self.key_starts, self.leaf_starts = leaf_strides, key_starts, leaf_starts

    @property
    def elements(self) -> int:
        """Elements of one row."""
        count = 1
        for extent in self.extents:
            count *= extent
        return count


class ScaleAdd:
    """What becomes of values on their way: `values * scale + add`, or nothing where a tie compares them."""

    __slots__ = ("add", "scale", "tie")

    def __init__(self, scale: float | int = 1, add: float | int = 0, tie: bool = False) -> None:
        self.scale, self.add, self.tie = scale, add, tie

    @property
    def is_none(self) -> bool:
        """Whether values are copied, and cast at most."""
        return self.scale == 1 and self.add == 0 and not self.tie


class KeyRows:
    """Rows of one term of a block: keys and leaves by number, and where the map starts in each."""

    __slots__ = ("key_starts", "keys", "leaf_starts", "leaves")

    def __init__(self, keys: Numbers, leaves: Numbers, key_starts: Matrix, leaf_starts: Matrix) -> None:
        self.keys, self.leaves, self.key_starts, self.leaf_starts = keys, leaves, key_starts, leaf_starts

    @classmethod
    def joined(cls, parts: Sequence[KeyRows]) -> KeyRows:
        """One part after the other."""
        if len(parts) == 1:
            return parts[0]
        columns = ([part.keys, part.leaves, part.key_starts, part.leaf_starts] for part in parts)
        return cls(*map(np.concatenate, zip(*columns, strict=True)))

    def at(self, rows: Numbers) -> KeyRows:
        """Some of them."""
        return KeyRows(self.keys[rows], self.leaves[rows], self.key_starts[rows], self.leaf_starts[rows])


def moves(index_map: IndexMap, rows: KeyRows, key_strides: Shape | None = None) -> Moves:
    """Rows that all have one map, over C-contiguous memory; `key_strides` are the tensors', stored otherwise."""
    extents, key, leaf = strided(index_map, key_strides)
    in_key = _offsets(rows.key_starts, row_major(index_map.key_shape) if key_strides is None else key_strides)
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


class Read:
    """Neighbouring bytes of a file, read at once into leaves, where they may lie apart. `key` is the first one's.

    `parts` are, in the order of the file, a leaf, the first byte in it and one past the last.
    """

    __slots__ = ("file", "key", "nbytes", "offset", "parts")

    def __init__(self, file: str, offset: int, key: str, parts: list[tuple[str, int, int]], nbytes: int) -> None:
        self.file, self.offset, self.key, self.parts, self.nbytes = file, offset, key, parts, nbytes


class ByteRuns:
    """Runs of bytes, column by column; leaves, files and keys by number.

    Run `n` is `lengths[n]` bytes of a key, from `offsets[n]` on in its file, and goes to `starts[n]` of its leaf.
    """

    __slots__ = ("files", "keys", "leaves", "lengths", "offsets", "starts")

    def __init__(
        self, leaves: Column, files: Column, offsets: Column, starts: Column, lengths: Column, keys: Column
    ) -> None:
        self.leaves, self.files, self.offsets, self.starts = leaves, files, offsets, starts
        self.lengths, self.keys = lengths, keys

    def at(self, chosen: Column | npt.NDArray[np.bool_] | slice) -> ByteRuns:
        """Some of them."""
        return ByteRuns(*[column[chosen] for column in self.columns()])

    def rows(self) -> Iterator[tuple[int, int, int, int, int, int]]:
        """One by one."""
        return zip(*[column.tolist() for column in self.columns()], strict=True)

    def columns(self) -> tuple[Column, Column, Column, Column, Column, Column]:
        """All columns, as `ByteRuns` takes them."""
        return self.leaves, self.files, self.offsets, self.starts, self.lengths, self.keys


def runs(moves: Moves, itemsize: int, specs: Table, ranks: Numbers) -> ByteRuns:
    """Contiguous moves as runs; `ranks` are those of the files among all read."""
    numbers = moves.keys
    outer, length = _split(moves)
    grid = np.indices(outer).reshape(len(outer), -1) if outer else np.zeros((0, 1), np.int64)
    in_key = np.array(moves.key_strides[: len(outer)], np.int64) @ grid
    in_leaf = np.array(moves.leaf_strides[: len(outer)], np.int64) @ grid
    each, count = grid.shape[1], len(numbers)
    return ByteRuns(
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
    found: Sequence[ByteRuns], leaves: Sequence[str], keys: Sequence[str], files: Sequence[str], most: int
) -> Iterator[Read | Scatter]:
    """All runs in the order of the files, neighbours read together, `most` bytes at once; names by number."""
    runs = (
        found[0]
        if len(found) == 1
        else ByteRuns(*map(np.concatenate, zip(*[each.columns() for each in found], strict=True)))
    )
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


def _sorted(runs: ByteRuns) -> bool:
    """Whether runs stand in the order of the files already, as those of one leaf mostly do."""
    rank, offset = runs.files, runs.offsets
    later = (rank[1:] > rank[:-1]) | ((rank[1:] == rank[:-1]) & (offset[1:] >= offset[:-1]))
    return bool(later.all())


def _merged(runs: ByteRuns) -> ByteRuns:
    """Runs that touch both in the file and in the leaf, as one."""
    new = np.ones(len(runs.leaves), bool)
    new[1:] = (
        (runs.leaves[1:] != runs.leaves[:-1]) | _apart(runs) | (runs.starts[1:] != runs.starts[:-1] + runs.lengths[:-1])
    )
    heads = np.flatnonzero(new)
    merged = runs.at(heads)
    merged.lengths = np.add.reduceat(runs.lengths, heads)
    return merged


def _apart(runs: ByteRuns) -> npt.NDArray[np.bool_]:
    """Whether each run but the first does not follow the one before it in the file."""
    return (runs.files[1:] != runs.files[:-1]) | (runs.offsets[1:] != runs.offsets[:-1] + runs.lengths[:-1])


def _dense(runs: ByteRuns) -> Iterator[tuple[int, int]]:
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
    for first, stop in zip(heads[chosen].tolist(), stops[chosen].tolist(), strict=True):
        # Copied leaf by leaf: of many leaves each would have a call of its own for a run or two.
        if len(np.unique(runs.leaves[first:stop])) * _DENSE <= stop - first:
            yield first, stop


def _singly(
    runs: ByteRuns, leaves: Sequence[str], keys: Sequence[str], files: Sequence[str], most: int
) -> Iterator[Read]:
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
