"""A plan read backwards: one key's tensor, or what is here of it, out of the leaves that hold its elements."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from math import prod
from typing import NamedTuple, Protocol

import numpy as np

from bridge.mapping.block import Block, Term
from bridge.mapping.indexmap import IndexMap, Shape, Strided, strided
from bridge.mapping.shard import cut
from bridge.mapping.template import ArraySpec
from bridge.stream.convert import restore
from bridge.stream.direct import KeyRows, moves

_CHUNK = 8 << 20


class Shard(Protocol):
    """A box of a leaf that this process has: all of the leaf, or a device's shard."""

    start: Shape
    shape: Shape
    dtype: np.dtype

    def read(self, index_map: IndexMap) -> tuple[IndexMap, np.ndarray]:
        """Memory of the host that holds what `index_map` says of the box, and the map to this memory."""
        ...


class HostLeaf:
    """A leaf that is an array in the host's memory."""

    def __init__(self, array: np.ndarray, start: Shape | None = None) -> None:
        self.start = (0,) * array.ndim if start is None else start
        self.shape, self.dtype = array.shape, array.dtype
        self.array = np.ascontiguousarray(array).reshape(array.shape)

    @cached_property
    def raw(self) -> memoryview:
        """Its bytes."""
        return self.array.reshape(-1).view(np.uint8).data

    def read(self, index_map: IndexMap) -> tuple[IndexMap, np.ndarray]:
        """All of it."""
        return index_map, self.array


class TermRows:
    """All rows of one term of a block; `zero` where a sum left their elements to another key."""

    def __init__(self, block: Block, term: Term, *, zero: bool) -> None:
        self.block, self.term, self.zero = block, term, zero

    @cached_property
    def leaves(self) -> list[str]:
        """The leaf of each row."""
        return list(self.block.leaves)

    @cached_property
    def count(self) -> int:
        """How many elements a row has."""
        return self.term.index_map.count

    @cached_property
    def starts(self) -> list[int] | None:
        """The element of its leaf at which each row's tensor starts; `None` where it does not lie there as one run,
        whole and unchanged.
        """
        block, term = self.block, self.term
        if self.zero or block.scale != 1 or block.add != 0 or not term.index_map.whole_key:
            return None
        found = moves(term.index_map, KeyRows(term.keys.numbers, block.leaves.numbers, term.starts, block.starts))
        if len(found.extents) > 1 or not {*found.key_strides, *found.leaf_strides} <= {1}:
            return None
        return found.leaf_starts.tolist()


class LeafElements:
    """Elements of a key that a leaf holds: one row of many."""

    __slots__ = ("row", "rows")

    def __init__(self, rows: TermRows, row: int) -> None:
        self.rows, self.row = rows, row

    @property
    def leaf(self) -> str:
        """The leaf's name."""
        return self.rows.leaves[self.row]

    @property
    def index_map(self) -> IndexMap:
        """Which elements of the key they are, and which of the leaf."""
        return self.rows.term.map(self.row, self.rows.block.starts)

    @property
    def zero(self) -> bool:
        """Whether a sum left them to another key."""
        return self.rows.zero


def pieces(blocks: Iterable[Block]) -> dict[str, list[LeafElements]]:
    """For every key that a plan reads, where its elements are. A copy is where they come from if nothing else is."""
    found: dict[str, list[LeafElements]] = {}
    copies: dict[str, list[LeafElements]] = {}
    for block in blocks:
        into = copies if block.copy else found
        terms = [(list(term.keys), TermRows(block, term, zero=n > 0)) for n, term in enumerate(block.terms)]
        for row in range(len(block)):
            for keys, rows in terms:
                into.setdefault(keys[row], []).append(LeafElements(rows, row))
    return {key: _enough(held) for key, held in copies.items()} | found


def _enough(held: Sequence[LeafElements]) -> list[LeafElements]:
    """As many pieces, of copies that hold the same elements, as it takes to have all of them: the first count."""
    wanted, count = prod(held[0].index_map.key_shape), 0
    for number, piece in enumerate(held):
        count += piece.index_map.count
        if count >= wanted:
            return list(held[: number + 1])
    return list(held)


def exact_keys(blocks: Iterable[Block], specs: Mapping[str, ArraySpec], lossy: Container[str]) -> set[str]:
    """The keys that the leaves give back bit for bit: every element is in one, and none is in `lossy`."""
    found: set[str] = set()
    for key, held in pieces(blocks).items():
        count = sum(piece.rows.count for piece in held if not piece.zero)
        if key not in lossy and count >= prod(specs[key].shape):
            found.add(key)
    return found


def raw(
    held: Sequence[LeafElements], leaves: Mapping[str, Sequence[Shard]], dtype: np.dtype
) -> np.ndarray | memoryview:
    """One key's tensor in `dtype`, to be written: its bytes where they lie in the host's memory, else as `gather`.

    **Raises:** `CheckpointError` where a value does not fit into `dtype`.
    """
    starts = held[0].rows.starts if len(held) == 1 else None
    if starts is not None:
        row, rows = held[0].row, held[0].rows
        parts = leaves[rows.leaves[row]]
        whole = parts[0] if len(parts) == 1 else None
        if isinstance(whole, HostLeaf) and whole.dtype == dtype and whole.shape == rows.term.index_map.leaf_shape:
            start = starts[row] * dtype.itemsize
            return whole.raw[start : start + rows.count * dtype.itemsize]
    return gather(held, leaves, dtype)


def gather(
    held: Iterable[LeafElements], leaves: Mapping[str, Sequence[Shard]], dtype: np.dtype, into: np.ndarray | None = None
) -> np.ndarray:
    """One key's tensor in `dtype`: a view of a leaf where it is one, else an array of its own.

    Elements that no leaf has are those of `into`, which is written to, or zero.

    **Raises:** `CheckpointError` where a value does not fit into `dtype`.
    """
    held = list(held)
    if len(held) == 1 and (view := _view(held[0], leaves[held[0].leaf], dtype)) is not None:
        return view
    out = np.zeros(held[0].index_map.key_shape, dtype) if into is None else into
    for move in _moves(held, leaves):
        move.carry_out(out)
    return out


def agrees(
    copy: LeafElements, held: Iterable[LeafElements], leaves: Mapping[str, Sequence[Shard]], dtype: np.dtype
) -> bool:
    """Whether a copy has, in `dtype`, the very bits of one key's tensor that other leaves hold."""
    tensor = gather(held, leaves, dtype)
    written = tensor.copy()
    for move in _moves([copy], leaves):
        move.carry_out(written)
    return written.tobytes() == tensor.tobytes()


def runs(
    held: Iterable[LeafElements], leaves: Mapping[str, Sequence[Shard]], dtype: np.dtype
) -> Iterator[tuple[int, np.ndarray]]:
    """What `leaves` have of one key's tensor in `dtype`, where other processes have the rest.

    **Returns:** flat arrays, none longer than some megabytes, each with the element of the tensor where it starts.

    **Raises:** `CheckpointError` where a value does not fit into `dtype`.
    """
    moves = list(_moves(held, leaves))
    shape = moves[0].index_map.key_shape if moves else (0,)
    if 0 in shape:
        return
    row = prod(shape[1:])
    rows = max(_CHUNK // max(row * dtype.itemsize, 1), 1)
    for first in range(0, shape[0] if shape else 1, rows):
        box = (min(rows, shape[0] - first), *shape[1:]) if shape else ()
        start = (first, *(0 for _ in shape[1:])) if shape else ()
        inside = [part for move in moves for part in move.within(start, box)]
        if not inside:
            continue
        out, there = np.empty(box, dtype), np.zeros(box, bool)
        for move in inside:
            move.carry_out(out)
            move.mark(there)
        flat, marks = out.reshape(-1), there.reshape(-1)
        edges = np.flatnonzero(marks[1:] != marks[:-1]) + 1
        bounds = [0, *edges.tolist(), marks.size]
        for low, high in pairwise(bounds):
            if marks[low]:
                yield first * row + low, flat[low:high]


def count(held: Iterable[LeafElements], leaves: Mapping[str, Sequence[Shard]]) -> int:
    """How many elements of one key's tensor `leaves` have."""
    return sum(move.index_map.count for move in _moves(held, leaves))


class _Move(NamedTuple):
    """Elements of a key's tensor, or of a box of it, that a part of a leaf has."""

    piece: LeafElements
    part: Shard
    index_map: IndexMap

    def within(self, start: Shape, shape: Shape) -> list[_Move]:
        """What of them lies in a box of the tensor, as moves to the box's own memory."""
        return [self._replace(index_map=found.back) for found in cut(self.index_map.back, start, shape)]

    def carry_out(self, out: np.ndarray) -> None:
        """Write them to `out`. **Raises:** `CheckpointError` where a value does not fit."""
        index_map, memory = self.part.read(self.index_map)
        extents, key, leaf = strided(index_map)
        if 0 not in extents:
            values = _strided(memory.reshape(-1), leaf, extents)
            block = self.piece.rows.block
            restore(values, block.scale, block.add, _strided(out.reshape(-1), key, extents))

    def mark(self, there: np.ndarray) -> None:
        """Say in `there` which they are."""
        extents, key, _ = strided(self.index_map)
        if 0 not in extents:
            _strided(there.reshape(-1), key, extents)[...] = True


def _moves(held: Iterable[LeafElements], leaves: Mapping[str, Sequence[Shard]]) -> Iterator[_Move]:
    """The elements of a key's tensor, leaf by leaf and part by part; zeros are in no leaf."""
    for piece in held:
        if not piece.zero:
            whole = piece.index_map
            for part in leaves[piece.leaf]:
                for index_map in cut(whole, part.start, part.shape):
                    yield _Move(piece, part, index_map)


def _view(piece: LeafElements, parts: Sequence[Shard], dtype: np.dtype) -> np.ndarray | None:
    """The tensor as it lies in the leaf, where it lies there as one run and unchanged."""
    block, index_map = piece.rows.block, piece.index_map
    if piece.zero or block.scale != 1 or block.add != 0 or not index_map.whole_key or len(parts) != 1:
        return None
    if parts[0].shape != index_map.leaf_shape or parts[0].dtype != dtype:
        return None
    index_map, leaf = parts[0].read(index_map)
    extents, key, place = strided(index_map)
    count = index_map.count
    if len(extents) > 1 or (extents and (key.strides != (1,) or place.strides != (1,))) or not leaf.flags.c_contiguous:
        return None
    return leaf.reshape(-1)[place.offset : place.offset + count].reshape(index_map.key_shape)


def _strided(flat: np.ndarray, view: Strided, extents: tuple[int, ...]) -> np.ndarray:
    itemsize = flat.dtype.itemsize
    steps = tuple(n * itemsize for n in view.strides)
    # Over bytes: numpy's own as_strided takes some dtypes of 8 bits for unknown ones.
    return np.ndarray(extents, flat.dtype, flat.view(np.uint8), view.offset * itemsize, steps)
