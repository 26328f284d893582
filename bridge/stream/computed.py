"""Tensors whose values are computed from others: made a band at a time, between reading and placing.

What the bands are, and how values are made, is the tensor's own matter: see `bridge.format.view` and
`bridge.source.box`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bridge.format.table import Form, Table
from bridge.mapping.block import Block
from bridge.mapping.indexmap import Atom, IndexMap, Shape, row_major, strided
from bridge.mapping.shard import cut, parts
from bridge.source.box import BAND_NBYTES, ComputedBox, StoredBox, bands, box_of
from bridge.stream.convert import assign, check_equal, combine
from bridge.stream.direct import Change, Rows, view
from bridge.stream.sourced import SourcedRead

if TYPE_CHECKING:
    from bridge.format.view import Box


class Piece(NamedTuple):
    """What of a band goes to a leaf; the map is from the band to the leaf's memory."""

    leaf: str
    change: Change
    index_map: IndexMap


class ComputedRead(SourcedRead):
    """A box of the tensor `key`, and what of it goes to leaves."""

    __slots__ = ("box", "pieces")

    def __init__(self, key: str, box: StoredBox | ComputedBox, pieces: tuple[Piece, ...]) -> None:
        super().__init__(key, box.sources)
        self.box, self.pieces = box, pieces

    @property
    def scratch_nbytes(self) -> int:
        """What it takes to carry this out: what is read, what is computed of it, and, where it changes, wider forms."""
        changed = max(0 if piece.change.is_none else 16 * piece.index_map.count for piece in self.pieces)
        return self.nbytes + self.box.scratch_nbytes + changed

    def finish(self, read: Sequence[np.ndarray], leaves: Mapping[str, np.ndarray]) -> None:
        """Write the values to their places.

        **Raises:** `CheckpointError` where a value does not fit, or a tie is none.
        """
        values = np.ascontiguousarray(self.box.values(iter(read))).reshape(-1)
        for leaf, change, index_map in self.pieces:
            extents, key, place = strided(index_map)
            part = view(values, key.offset, extents, key.strides)
            out = view(leaves[leaf].reshape(-1), place.offset, extents, place.strides)
            if change.is_none:
                assign(out, part)
            elif change.tie:
                check_equal(out, part)
            else:
                combine([part], change.scale, change.add, out)


class Summand(NamedTuple):
    """A box of one term of a sum; the maps are from it to the box of the leaf that the sum makes."""

    box: StoredBox | ComputedBox
    index_maps: tuple[IndexMap, ...]


class ComputedSum(SourcedRead):
    """A box of a leaf, from `start` on, that is the sum of several tensors; `key` is the first one.

    `leaf_shape` is that of the leaf's memory, `shape` that of the box.
    """

    __slots__ = ("change", "leaf", "leaf_shape", "shape", "start", "terms")

    def __init__(self, key: str, terms: tuple[Summand, ...], whole: Piece, start: Shape, shape: Shape) -> None:
        super().__init__(key, tuple([source for term in terms for source in term.box.sources]))
        self.terms, self.leaf, self.change = terms, whole.leaf, whole.change
        self.leaf_shape, self.start, self.shape = whole.index_map.leaf_shape, start, shape

    @property
    def scratch_nbytes(self) -> int:
        """What it takes to carry this out: what is read and computed, each term in the leaf's order, and their sum."""
        made = sum(term.box.scratch_nbytes + prod(self.shape) * term.box.dtype.itemsize for term in self.terms)
        return self.nbytes + made + 16 * prod(self.shape)

    def finish(self, read: Sequence[np.ndarray], leaves: Mapping[str, np.ndarray]) -> None:
        """Write the sum to its place. **Raises:** `CheckpointError` where a value does not fit."""
        flat = iter(read)
        made = [self._ordered(term, flat) for term in self.terms]
        leaf = leaves[self.leaf].reshape(-1)
        for index_map in self.terms[0].index_maps:
            # Terms cover the same elements of the leaf, each in an order of its own.
            inside = [_at(values.reshape(-1), self.shape, index_map.leaf_start, index_map.atoms) for values in made]
            start = tuple([a + b for a, b in zip(self.start, index_map.leaf_start, strict=True)])
            out = _at(leaf, self.leaf_shape, start, index_map.atoms)
            combine(inside, self.change.scale, self.change.add, out)

    def _ordered(self, term: Summand, read: Iterator[np.ndarray]) -> np.ndarray:
        """A term as the box of the leaf has it."""
        values = np.ascontiguousarray(term.box.values(read)).reshape(-1)
        out = np.empty(prod(self.shape), values.dtype)
        for index_map in term.index_maps:
            extents, key, place = strided(index_map)
            np.copyto(view(out, place.offset, extents, place.strides), view(values, key.offset, extents, key.strides))
        return out


def _at(flat: np.ndarray, shape: Shape, start: Shape, atoms: Sequence[Atom]) -> np.ndarray:
    """The elements of flat memory of `shape` that a map has there, an axis for each atom."""
    strides = row_major(shape)
    first = sum(a * b for a, b in zip(start, strides, strict=True))
    steps = tuple([atom.leaf_step * strides[atom.leaf_axis] for atom in atoms])
    return view(flat, first, tuple([atom.extent for atom in atoms]), steps)


class _Use(NamedTuple):
    """What a row takes of a tensor: the box that holds it, and where it goes."""

    box: Box
    piece: Piece


def computed(
    changing: Sequence[tuple[Block, Sequence[Rows], np.dtype]], specs: Table, leaves: Sequence[str]
) -> list[ComputedRead | ComputedSum]:
    """The reads of rows of which some term is computed. What several of them take from one tensor is read once.

    `changing`: blocks, the rows of their terms, and the dtype of the leaves.
    """
    found: list[ComputedRead | ComputedSum] = []
    uses: dict[tuple[int, np.dtype], list[_Use]] = {}
    for block, terms, dtype in changing:
        change = Change(block.scale, block.add, block.tie)
        for row in range(len(terms[0].leaves)):
            maps = [_map(term.index_map, rows, row) for term, rows in zip(block.terms, terms, strict=True)]
            if not maps[0].count:
                continue
            keys, leaf = [int(rows.keys[row]) for rows in terms], leaves[int(terms[0].leaves[row])]
            if len(maps) > 1:
                found += _sums(maps, keys, Piece(leaf, change, maps[0]), specs)
            else:
                made_in = _made_in(specs.forms[int(specs.kinds[keys[0]])], dtype, change)
                uses.setdefault((keys[0], made_in), []).append(_Use(_box([maps[0]]), Piece(leaf, change, maps[0])))
    for (number, made_in), members in uses.items():
        found += _reads(number, members, specs, made_in)
    return found


def _made_in(form: Form, dtype: np.dtype, change: Change) -> np.dtype:
    """The dtype in which a tensor's values are computed for a leaf of `dtype`, so that they are rounded once."""
    if not form.computed_in:
        return form.dtype
    as_it_is = change.is_none or change.tie
    return dtype if as_it_is and dtype in form.computed_in else max(form.computed_in, key=lambda d: d.itemsize)


def _map(index_map: IndexMap, rows: Rows, row: int) -> IndexMap:
    key_start, leaf_start = (tuple(column[row].tolist()) for column in (rows.key_starts, rows.leaf_starts))
    return IndexMap(index_map.key_shape, index_map.leaf_shape, key_start, leaf_start, index_map.atoms)


def _reads(number: int, members: Sequence[_Use], specs: Table, dtype: np.dtype) -> Iterator[ComputedRead]:
    """What is taken from one tensor, band by band."""
    tensor = specs.part(number)
    grain = (1,) * len(tensor.form.shape) if tensor.form.view is None else tensor.form.view.grain
    for uses in _near(members, grain):
        for band in bands(tensor, _hull([use.box for use in uses])):
            inside = [(use, part) for use in uses if (part := _common(use.box, band)) is not None]
            if not inside:
                continue
            box = _hull([part for _, part in inside])
            start, shape = tuple(r.start for r in box), tuple(map(len, box))
            pieces = [
                use.piece._replace(index_map=found.back)
                for use, _ in inside
                for found in cut(use.piece.index_map.back, start, shape)
            ]
            if pieces:
                made = box_of(tensor, box, dtype)
                yield ComputedRead(tensor.name, made, tuple(pieces))


def _sums(maps: Sequence[IndexMap], keys: Sequence[int], whole: Piece, specs: Table) -> Iterator[ComputedSum]:
    """One row of a sum, cut into boxes of the leaf."""
    tensors = [specs.part(number) for number in keys]
    limit = max(BAND_NBYTES // (8 * len(maps)), 1)
    for band in parts(_box([maps[0].back]), limit):
        start, shape = tuple(r.start for r in band), tuple(map(len, band))
        terms: list[Summand] = []
        for tensor, index_map in zip(tensors, maps, strict=True):
            inside = cut(index_map, start, shape)
            if inside:
                box = _box(inside)
                based = tuple([_based(found, box) for found in inside])
                made_in = _made_in(tensor.form, tensor.form.dtype, Change(scale=2))
                terms.append(Summand(box_of(tensor, box, made_in), based))
        if terms:
            yield ComputedSum(tensors[0].name, tuple(terms), whole, start, shape)


def _based(index_map: IndexMap, box: Box) -> IndexMap:
    """A map of what lies in a box of the tensor, as one of the box's own memory."""
    start = tuple([a - r.start for a, r in zip(index_map.key_start, box, strict=True)])
    return IndexMap(tuple(map(len, box)), index_map.leaf_shape, start, index_map.leaf_start, index_map.atoms)


def _box(maps: Sequence[IndexMap]) -> Box:
    """The smallest box of a tensor that holds what maps take from it."""
    found: list[Box] = []
    for one in maps:
        low, high = list(one.key_start), list(one.key_start)
        for atom in one.atoms:
            reach = (atom.extent - 1) * atom.key_step
            low[atom.key_axis] += min(reach, 0)
            high[atom.key_axis] += max(reach, 0)
        found.append(tuple([range(a, b + 1) for a, b in zip(low, high, strict=True)]))
    return _hull(found)


def _hull(boxes: Sequence[Box]) -> Box:
    """The smallest box that holds all of them."""
    axes = zip(*boxes, strict=True)
    return tuple([range(min(r.start for r in axis), max(r.stop for r in axis)) for axis in axes])


def _common(one: Box, two: Box) -> Box | None:
    """What two boxes have in common."""
    found = tuple([range(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(one, two, strict=True)])
    return found if all(map(len, found)) else None


def _near(members: Sequence[_Use], grain: Shape) -> list[list[_Use]]:
    """Boxes in groups: those that share a grain, or whose hull holds little beside them, are read together."""
    groups: list[tuple[Box, int, list[_Use]]] = []
    for use in sorted(members, key=lambda use: [r.start for r in use.box]):
        hull, size, group = _aligned(use.box, grain), prod(map(len, _aligned(use.box, grain))), [use]
        for other in reversed(groups):
            both = _hull([hull, other[0]])
            if _common(hull, other[0]) is not None or prod(map(len, both)) <= size + other[1]:
                groups.remove(other)
                hull, size, group = both, min(prod(map(len, both)), size + other[1]), other[2] + group
        groups.append((hull, size, group))
    return [group for _, _, group in groups]


def _aligned(box: Box, grain: Shape) -> Box:
    """A box made larger, to multiples of the grain."""
    return tuple([range(r.start // n * n, -(-r.stop // n) * n) for r, n in zip(box, grain, strict=True)])
