"""Tensors whose values are computed from others: made a band at a time, between reading and placing.

What the bands are, and how values are made, is the tensor's own matter: see `bridge.format.view` and
`bridge.source.box`. What is read of a tensor, and where it goes, is worked out once for all tensors that are alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bridge.format.table import StoredTensor, Table
from bridge.mapping.block import Block
from bridge.mapping.indexmap import IndexMap, Shape, row_major, strided
from bridge.mapping.shard import cut
from bridge.source.box import ComputedBox, bands, box_of, reads, within
from bridge.stream.convert import assign, check_equal, combine
from bridge.stream.direct import KeyRows, ScaleAdd, view
from bridge.stream.sourced import SourcedRead
from bridge.stream.summed import ComputedSum, box_behind, made_in, sums

if TYPE_CHECKING:
    from bridge.format.view import Box


class BoxCopy(NamedTuple):
    """What of a box goes to a leaf, over flat memory; what is `None` has the axes of the box.

    - `use`: which of the places that the tensor goes to.
    - `start`, `strides`: in the box.
    - `leaf_start`, `leaf_strides`: in the leaf, from where the place starts.
    """

    use: int
    change: ScaleAdd
    extents: Shape
    start: int | None
    strides: Shape
    leaf_start: int
    leaf_strides: Shape


class ComputedRead(SourcedRead):
    """A box of the tensor `key`, and what of it goes to leaves. `places`: of each use the leaf, and where in it."""

    __slots__ = ("box", "pieces", "places")

    def __init__(
        self, tensor: StoredTensor, box: ComputedBox, pieces: tuple[BoxCopy, ...], places: Sequence[tuple[str, int]]
    ) -> None:
        super().__init__(tensor.name, tuple(box.sources(tensor)))
        self.box, self.pieces, self.places = box, pieces, places

    @property
    def scratch_nbytes(self) -> int:
        """What it takes to carry this out, beside what it goes to."""
        return scratch_nbytes(self.box, self.pieces)

    def finish(self, read: Sequence[np.ndarray], leaves: Mapping[str, np.ndarray]) -> None:
        """Write the values to their places.

        **Raises:** `CheckpointError` where a value does not fit, or a tie is none.
        """
        first = self.pieces[0]
        if first.start is None:
            self._whole(first, read, self._out(first, leaves))
            return
        values = self.box.values(iter(read)).reshape(-1)
        for piece in self.pieces:
            _put(piece.change, self._out(piece, leaves), view(values, piece.start or 0, piece.extents, piece.strides))

    def _out(self, piece: BoxCopy, leaves: Mapping[str, np.ndarray]) -> np.ndarray:
        leaf, start = self.places[piece.use]
        return view(leaves[leaf].reshape(-1), start + piece.leaf_start, piece.extents, piece.leaf_strides)

    def _whole(self, piece: BoxCopy, read: Sequence[np.ndarray], out: np.ndarray) -> None:
        """All of the box, to `out` of its shape: computed there where it may be."""
        dtype, axes = self.box.dtype, np.argsort([-stride for stride in piece.leaf_strides])
        there = piece.change.is_none and out.dtype == dtype and (not out.ndim or piece.leaf_strides[-1] == 1)
        space = np.empty(0, dtype)
        for inner, parts in self.box.banded(iter(read), axes.tolist()):
            place = out[(*within(inner, self.box.box), ...)]  # a view, also of one value
            if there:
                self.box.view.values(inner, parts, place)
                continue
            if space.size < place.size:
                space = np.empty(place.size, dtype)
            values = space[: place.size].reshape(place.shape)
            self.box.view.values(inner, parts, values)
            _put(piece.change, place, values)


def _put(change: ScaleAdd, out: np.ndarray, values: np.ndarray) -> None:
    if change.is_none:
        assign(out, values)
    elif change.tie:
        check_equal(out, values)
    else:
        combine([values], change.scale, change.add, out)


def scratch_nbytes(box: ComputedBox, pieces: Sequence[BoxCopy]) -> int:
    """What it takes to carry a read out: what is read, what is computed of it, and, where it changes, wider forms."""
    changed = max(0 if piece.change.is_none else 16 * prod(piece.extents) for piece in pieces)
    return box.read_nbytes + box.scratch_nbytes + changed


class _Use(NamedTuple):
    """How some tensors go to leaves: the map starts at 0 in the leaf. `box` of the tensor holds what it takes."""

    box: Box
    change: ScaleAdd
    index_map: IndexMap


class _BoxRead(NamedTuple):
    """A box of a tensor and what of it goes where."""

    box: ComputedBox
    pieces: tuple[BoxCopy, ...]


class Alike(NamedTuple):
    """Tensors that are stored alike and go to leaves alike.

    - `cuts`: what is read of each.
    - `numbers`: of the tensors; `places`: of each tensor, for each use, the leaf and where in it.
    """

    cuts: Sequence[_BoxRead]
    numbers: list[int]
    places: list[list[tuple[str, int]]]

    @property
    def nbytes(self) -> int:
        """How many bytes are read of all of them."""
        return len(self.numbers) * sum(cut.box.read_nbytes for cut in self.cuts)

    @property
    def scratch_nbytes(self) -> int:
        """What the largest read takes."""
        return max((scratch_nbytes(*cut) for cut in self.cuts), default=0)

    def reads(self, specs: Table) -> Iterator[ComputedRead]:
        """The reads of all of them."""
        for number, places in zip(self.numbers, self.places, strict=True):
            tensor = specs.part(number)
            for box, pieces in self.cuts:
                yield ComputedRead(tensor, box, pieces, places)


Computing = Sequence[tuple[Block, Sequence[KeyRows], np.dtype]]
"""Blocks, the rows of their terms, and the dtype of the leaves."""


def computed(changing: Computing, specs: Table, leaves: Sequence[str]) -> list[ComputedRead | ComputedSum]:
    """The reads of rows of which some term is computed. What several of them take from one tensor is read once."""
    found: list[ComputedRead | ComputedSum] = []
    for block, terms, _ in changing:
        if len(terms) > 1:
            found += sums(block, terms, specs, leaves)
    for alike in grouped(changing, specs, leaves):
        found += alike.reads(specs)
    return found


def computed_sizes(changing: Computing, specs: Table, leaves: Sequence[str]) -> Iterator[tuple[int, int, int]]:
    """Of these reads, in groups: how many there are, how many bytes they read, and what the largest takes."""
    for block, terms, _ in changing:
        if len(terms) > 1:
            found = list(sums(block, terms, specs, leaves))
            yield len(found), sum(job.nbytes for job in found), max((job.scratch_nbytes for job in found), default=0)
    for alike in grouped(changing, specs, leaves):
        yield len(alike.numbers) * len(alike.cuts), alike.nbytes, alike.scratch_nbytes


def grouped(changing: Computing, specs: Table, leaves: Sequence[str]) -> list[Alike]:
    """The rows of one term, by what is read for them."""
    known: dict[tuple[object, ...], int] = {}
    kinds: list[_Use] = []
    uses: dict[tuple[int, np.dtype], list[tuple[int, str, int]]] = {}
    for block, terms, dtype in changing:
        if len(terms) > 1:
            continue
        index_map, rows = block.terms[0].index_map, terms[0]
        if not index_map.count or not len(rows.keys):
            continue
        change = ScaleAdd(block.scale, block.add, block.tie)
        computed_in = made_in(specs.forms[int(specs.kinds[rows.keys[0]])], dtype, change)
        starts: list[int] = (rows.leaf_starts @ np.array(row_major(index_map.leaf_shape), np.int64)).tolist()
        columns = rows.keys.tolist(), rows.leaves.tolist(), rows.key_starts.tolist(), starts
        each: Iterator[tuple[int, int, list[int], int]] = zip(*columns, strict=True)
        for number, leaf, key_start, start in each:
            kind = known.setdefault((id(block), *key_start), len(kinds))
            if kind == len(kinds):
                kinds.append(_use(index_map, tuple(key_start), change))
            uses.setdefault((number, computed_in), []).append((kind, leaves[leaf], start))
    found: dict[tuple[object, ...], Alike] = {}
    for (number, computed_in), members in uses.items():
        of = tuple([kind for kind, _, _ in members])
        key = int(specs.kinds[number]), computed_in, *of
        if key not in found:
            tensor = specs.part(number)
            found[key] = Alike(list(_cuts(tensor, [kinds[kind] for kind in of], computed_in)), [], [])
        found[key].numbers.append(number)
        found[key].places.append([(leaf, start) for _, leaf, start in members])
    return list(found.values())


def _use(index_map: IndexMap, key_start: Shape, change: ScaleAdd) -> _Use:
    start = (0,) * len(index_map.leaf_shape)
    placed = IndexMap(index_map.key_shape, index_map.leaf_shape, key_start, start, index_map.loops)
    return _Use(box_behind([placed]), change, placed)


def _cuts(tensor: StoredTensor, members: Sequence[_Use], dtype: np.dtype) -> Iterator[_BoxRead]:
    """What is taken from one tensor, band by band."""
    if len(members) == 1 and (steps := _steps(members[0])) is not None:
        whole, change, _ = members[0]
        for box in reads(tensor, whole):
            at = sum((r.start - w.start) * step for r, w, step in zip(box, whole, steps, strict=True))
            yield _BoxRead(_box(tensor, box, dtype), (BoxCopy(0, change, tuple(map(len, box)), None, (), at, steps),))
        return
    grain = (1,) * len(tensor.form.shape) if tensor.form.view is None else tensor.form.view.grain
    for group in _near(list(enumerate(members)), grain):
        for band in bands(tensor, hull([use.box for _, use in group])):
            inside = [(n, use, part) for n, use in group if (part := _common(use.box, band)) is not None]
            if not inside:
                continue
            box = hull([part for _, _, part in inside])
            pieces = tuple([piece for n, use, _ in inside for piece in _pieces(n, use, box)])
            if pieces:
                yield _BoxRead(_box(tensor, box, dtype), pieces)


def _box(tensor: StoredTensor, box: Box, dtype: np.dtype) -> ComputedBox:
    made = box_of(tensor, box, dtype)
    assert isinstance(made, ComputedBox), "a tensor that is stored is no business of this module"
    return made


def _steps(use: _Use) -> Shape | None:
    """The strides in the leaf of each axis of the tensor, where a use takes all of its box, axis by axis."""
    strides, steps = row_major(use.index_map.leaf_shape), [0] * len(use.box)
    for loop in use.index_map.loops:
        if loop.extent == 1:
            continue
        if loop.key_step != 1 or steps[loop.key_axis] or len(use.box[loop.key_axis]) != loop.extent:
            return None
        steps[loop.key_axis] = loop.leaf_step * strides[loop.leaf_axis]
    return tuple(steps) if prod(map(len, use.box)) == use.index_map.count else None


def _pieces(number: int, use: _Use, box: Box) -> Iterator[BoxCopy]:
    start, shape = tuple(r.start for r in box), tuple(map(len, box))
    for found in cut(use.index_map.back, start, shape):
        extents, key, place = strided(found.back)
        yield BoxCopy(number, use.change, extents, key.offset, key.strides, place.offset, place.strides)


def hull(boxes: Sequence[Box]) -> Box:
    """The smallest box that holds all of them."""
    axes = zip(*boxes, strict=True)
    return tuple([range(min(r.start for r in axis), max(r.stop for r in axis)) for axis in axes])


def _common(one: Box, two: Box) -> Box | None:
    """What two boxes have in common."""
    found = tuple([range(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(one, two, strict=True)])
    return found if all(map(len, found)) else None


def _near(members: Sequence[tuple[int, _Use]], grain: Shape) -> list[list[tuple[int, _Use]]]:
    """Boxes in groups: those that share a grain, or whose hull holds little beside them, are read together."""
    groups: list[tuple[Box, int, list[tuple[int, _Use]]]] = []
    for number, use in sorted(members, key=lambda member: [r.start for r in member[1].box]):
        around = _aligned(use.box, grain)
        size, group = prod(map(len, around)), [(number, use)]
        for other in reversed(groups):
            both = hull([around, other[0]])
            if _common(around, other[0]) is not None or prod(map(len, both)) <= size + other[1]:
                groups.remove(other)
                around, size, group = both, min(prod(map(len, both)), size + other[1]), other[2] + group
        groups.append((around, size, group))
    return [group for _, _, group in groups]


def _aligned(box: Box, grain: Shape) -> Box:
    """A box made larger, to multiples of the grain."""
    return tuple([range(r.start // n * n, -(-r.stop // n) * n) for r, n in zip(box, grain, strict=True)])
