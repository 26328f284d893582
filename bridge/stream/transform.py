"""Bytes that have to change on their way: read into scratch a chunk at a time, and copied out of it by strides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import NamedTuple, TypeAlias

import numpy as np

from bridge.format.spec import TensorSpec
from bridge.format.table import Table
from bridge.source.box import FileRun
from bridge.source.bytes import worth_skipping
from bridge.stream.buffers import CHUNK
from bridge.stream.convert import assign, check_equal, combine
from bridge.stream.direct import Moves, ScaleAdd, view
from bridge.stream.sourced import SourcedRead

Shape = tuple[int, ...]
_LINE = 64  # elements: whole lines of the processor's cache, whatever an element's size
_COMPUTED = CHUNK // 8
"""Bytes of a chunk that is computed with, or compared: its values are there a few times over, and widened."""


class RunCopy(NamedTuple):
    """Elements of a run in scratch and their place in a leaf, all in elements."""

    leaf: str
    change: ScaleAdd
    extents: Shape
    start: int
    strides: Shape
    leaf_start: int
    leaf_strides: Shape


Cut: TypeAlias = tuple[int, int, list[RunCopy]]
"""Elements `[low, high)` of a tensor, and its pieces there, which count their start from `low`."""


class TransformRead(SourcedRead):
    """One source and the pieces of it that go to leaves; or the terms of a sum, a source and a piece for each."""

    __slots__ = ("pieces",)

    def __init__(self, sources: tuple[FileRun, ...], pieces: tuple[RunCopy, ...]) -> None:
        super().__init__(sources[0].key, sources)
        self.pieces = pieces

    @property
    def scratch_nbytes(self) -> int:
        """What it takes to carry this out: what is read and, where that is computed with, its wider forms."""
        plain = len(self.sources) == 1 and self.pieces[0].change.is_none
        return (1 if plain else 4) * self.nbytes

    def finish(self, read: Sequence[np.ndarray], leaves: Mapping[str, np.ndarray]) -> None:
        """Write what was read, a flat array for each source, to its places.

        **Raises:** `CheckpointError` where a value does not fit, or a tie is none.
        """
        if len(self.sources) > 1:
            self._add(read, leaves)
            return
        for piece in self.pieces:
            values = view(read[0], piece.start, piece.extents, piece.strides)
            out = view(leaves[piece.leaf].reshape(-1), piece.leaf_start, piece.extents, piece.leaf_strides)
            if piece.change.is_none:
                assign(out, values)
            elif piece.change.tie:
                check_equal(out, values)
            else:
                combine([values], piece.change.scale, piece.change.add, out)

    def _add(self, read: Sequence[np.ndarray], leaves: Mapping[str, np.ndarray]) -> None:
        first = self.pieces[0]
        out = view(leaves[first.leaf].reshape(-1), first.leaf_start, first.extents, first.leaf_strides)
        terms = [_reordered(array, piece, first) for array, piece in zip(read, self.pieces, strict=True)]
        combine(terms, first.change.scale, first.change.add, out)


def transformed(
    changing: Sequence[tuple[ScaleAdd, list[Moves]]], specs: Table, leaves: Sequence[str]
) -> list[TransformRead]:
    """Rows whose bytes change; leaves by number. What several of them take from one tensor is read once."""
    found: list[TransformRead] = []
    single: list[tuple[ScaleAdd, Moves]] = []
    uses = np.zeros(len(specs), np.intp)
    for change, terms in changing:
        if len(terms) > 1:
            found += [made for row in range(len(terms[0].keys)) for made in _sums(change, terms, row, specs, leaves)]
        elif terms[0].elements:
            single.append((change, terms[0]))
            np.add.at(uses, terms[0].keys, 1)
    # Tensors of one form are cut alike, and most have a form in common with others.
    cuts: dict[tuple[object, ...], list[Cut]] = {}
    shared: dict[tuple[int, object], list[RunCopy]] = {}
    for change, term in single:
        whole = RunCopy("", change, term.extents, 0, term.key_strides, 0, term.leaf_strides)
        columns = term.keys.tolist(), term.leaves.tolist(), term.key_starts.tolist(), term.leaf_starts.tolist()
        rows: Iterator[tuple[int, int, int, int]] = zip(*columns, strict=True)
        for number, leaf, start, leaf_start in rows:
            if uses[number] > 1:
                # Parts side by side along the tensor's rows have the same outermost axis.
                outer = (term.extents[0], term.key_strides[0]) if term.extents else ()
                members = shared.setdefault((number, outer), [])
                members.append(whole._replace(leaf=leaves[leaf], start=start, leaf_start=leaf_start))
                continue
            spec, key = specs.spec(number), specs.names[number]
            form = whole.extents, whole.strides, whole.leaf_strides, spec.dtype.itemsize, change.is_none
            if form not in cuts:
                cuts[form] = list(_cuts([whole], spec.dtype.itemsize))
            for low, high, ((_, _, extents, _, strides, at, leaf_strides),) in cuts[form]:
                piece = RunCopy(leaves[leaf], change, extents, 0, strides, leaf_start + at, leaf_strides)
                found.append(TransformRead((_source(key, spec, start + low, start + high),), (piece,)))
    for (number, _), members in shared.items():
        spec, key = specs.spec(number), specs.names[number]
        for low, high, pieces in _cuts(members, spec.dtype.itemsize):
            found.append(TransformRead((_source(key, spec, low, high),), tuple(pieces)))
    return found


def _sums(
    change: ScaleAdd, terms: Sequence[Moves], row: int, specs: Table, leaves: Sequence[str]
) -> Iterator[TransformRead]:
    """One row of a sum, with all of its terms, since none alone is what the leaf holds.

    It is cut along its outermost axes into chunks, where all terms run through the leaf alike.
    """
    keys, leaf = [specs.names[int(term.keys[row])] for term in terms], leaves[int(terms[0].leaves[row])]
    whole = [
        RunCopy(leaf, change, t.extents, int(t.key_starts[row]), t.key_strides, int(t.leaf_starts[row]), t.leaf_strides)
        for t in terms
    ]
    alike = len({(piece.extents, piece.leaf_strides) for piece in whole}) == 1
    pending = [whole]
    while pending:
        group = pending.pop()
        spans = [(piece.start, piece.start + _span(piece.extents, piece.strides)) for piece in group]
        sources = tuple(_source(key, specs[key], *span) for key, span in zip(keys, spans, strict=True))
        axis = next((n for n, extent in enumerate(group[0].extents) if extent > 1), None)
        if axis is None or not alike or sum(source.nbytes for source in sources) <= _COMPUTED:
            yield TransformRead(sources, tuple(piece._replace(start=0) for piece in group))
            continue
        extent = group[0].extents[axis]
        each = min(max(extent * _COMPUTED // sum(source.nbytes for source in sources), 1), extent - 1)
        pending += [[_part(piece, axis, n, each) for piece in group] for n in reversed(range(0, extent, each))]


def _reordered(array: np.ndarray, piece: RunCopy, first: RunCopy) -> np.ndarray:
    """A term of a sum in the order of the first one: terms may run through the leaf in different orders."""
    values = view(array, piece.start, piece.extents, piece.strides)
    if (piece.extents, piece.leaf_strides) == (first.extents, first.leaf_strides):
        return values
    pairs = list(zip(piece.extents, piece.leaf_strides, strict=True))
    low = piece.leaf_start + sum(min(0, (n - 1) * stride) for n, stride in pairs)
    box = np.empty(1 + sum((n - 1) * abs(stride) for n, stride in pairs), array.dtype)
    np.copyto(view(box, piece.leaf_start - low, piece.extents, piece.leaf_strides), values)
    return view(box, first.leaf_start - low, first.extents, first.leaf_strides)


def _source(key: str, spec: TensorSpec, start: int, stop: int) -> FileRun:
    """Elements `[start, stop)` of a tensor."""
    itemsize = spec.dtype.itemsize
    return FileRun(spec.file, spec.offset + start * itemsize, (stop - start) * itemsize, key, spec.dtype)


def _span(extents: Shape, strides: Shape) -> int:
    """How far elements lie apart at most, plus one. Strides are positive: a map runs forwards through its tensor."""
    return 1 + sum((n - 1) * stride for n, stride in zip(extents, strides, strict=True)) if prod(extents) else 0


def _cuts(parts: Sequence[RunCopy], itemsize: int) -> Iterator[Cut]:
    """What is taken from one tensor, cut along its outermost axes into sources of at most one chunk."""
    limit = max((_COMPUTED if not all(piece.change.is_none for piece in parts) else CHUNK) // itemsize, 1)
    pending = [list(parts)]
    while pending:
        group = pending.pop()
        low = min(piece.start for piece in group)
        high = max(piece.start + _span(piece.extents, piece.strides) for piece in group)
        axis = next((n for n, extent in enumerate(group[0].extents) if extent > 1), None)
        gapped = axis is not None and _gapped(group, axis, itemsize)
        if axis is None or (high - low <= limit and not gapped):
            yield low, high, [piece._replace(start=piece.start - low) for piece in group]
            continue
        if len(group) > 1 and axis > 0:
            pending += [[piece] for piece in group]  # below the rows they have nothing in common
            continue
        stride = max(group[0].strides[axis], 1)  # 0 where a tensor repeats
        each = 1 if gapped else min(max(limit // stride, 1), group[0].extents[axis] - 1)
        if each > _LINE:  # a leaf that runs along this axis then gets whole lines of the cache
            each -= each % _LINE
        for first in reversed(range(0, group[0].extents[axis], each)):
            pending.append([_part(piece, axis, first, each) for piece in group])


def _gapped(group: Sequence[RunCopy], axis: int, itemsize: int) -> bool:
    """Whether what the tensor holds between two steps along `axis` is worth skipping."""
    low = min(piece.start for piece in group)
    run = max(piece.start + _span(piece.extents[axis + 1 :], piece.strides[axis + 1 :]) for piece in group) - low
    return worth_skipping((group[0].strides[axis] - run) * itemsize, run * itemsize)


def _part(piece: RunCopy, axis: int, first: int, count: int) -> RunCopy:
    """Values `[first, first + count)` of one axis of a piece."""
    extents = (*piece.extents[:axis], min(count, piece.extents[axis] - first), *piece.extents[axis + 1 :])
    start, leaf_start = piece.start + first * piece.strides[axis], piece.leaf_start + first * piece.leaf_strides[axis]
    return piece._replace(extents=extents, start=start, leaf_start=leaf_start)
