"""A box of a tensor: which bytes of which files hold it, and how they become values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from math import prod
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bridge._errors import CheckpointError
from bridge._text import quote
from bridge.source.bytes import FileSource, worth_skipping

if TYPE_CHECKING:
    from bridge.format.table import StoredTensor
    from bridge.format.view import Box, View

Shape = tuple[int, ...]
BAND_NBYTES = 1 << 20
"""Bytes of values, in float32 at least, that are computed at a time: they are there a few times over."""
_READ_NBYTES = (1 << 20) + (1 << 16)  # a MiB of codes, and scales
_THREAD_NBYTES = 4 << 20  # what a read takes, with what is computed in
_REQUEST = 16 << 10
_PAGE = 4 << 10  # a disk reads no less
_FEW = 256


class FileRun(NamedTuple):
    """A run of a file, of elements of `dtype`. `key` is the one whose bytes it starts with."""

    file: str
    offset: int
    nbytes: int
    key: str
    dtype: np.dtype


class StoredBox(NamedTuple):
    """A box of a stored tensor, the same for all tensors of one form.

    - `starts`: where its runs start, in bytes from where the tensor starts. `nbytes`: of each run.
    - `strides`: in the runs, one after the other, in elements.
    """

    starts: tuple[int, ...]
    nbytes: int
    shape: Shape
    strides: Shape
    dtype: np.dtype

    def sources(self, tensor: StoredTensor) -> list[FileRun]:
        """What is read for it of one tensor."""
        file, offset, name = tensor.file, tensor.offset, tensor.name
        return [FileRun(file, offset + start, self.nbytes, name, self.dtype) for start in self.starts]

    @property
    def read_nbytes(self) -> int:
        """How many bytes are read."""
        return len(self.starts) * self.nbytes

    @property
    def scratch_nbytes(self) -> int:
        """Memory to put it together in, beside what is read."""
        return self.read_nbytes if len(self.starts) > 1 else 0

    def values(self, read: Iterator[np.ndarray]) -> np.ndarray:
        """The box, of flat arrays that hold its runs in turn."""
        runs = [next(read) for _ in self.starts]
        flat = runs[0] if len(runs) == 1 else np.concatenate(runs)
        steps = tuple([n * flat.dtype.itemsize for n in self.strides])
        return np.ndarray(self.shape, flat.dtype, flat.view(np.uint8), 0, steps)


class ComputedBox(NamedTuple):
    """A box of a tensor that is computed from boxes of others, the same for all tensors of one form."""

    view: View
    box: Box
    dtype: np.dtype
    parts: tuple[StoredBox | ComputedBox, ...]

    def sources(self, tensor: StoredTensor) -> list[FileRun]:
        """What is read for it of one tensor, part by part."""
        return [one for box, part in zip(self.parts, tensor.parts, strict=True) for one in box.sources(part)]

    @property
    def read_nbytes(self) -> int:
        """How many bytes are read."""
        return sum(part.read_nbytes for part in self.parts)

    @property
    def scratch_nbytes(self) -> int:
        """Memory to compute it in, its own values and those of its parts among it, beside what is read."""
        band = min(prod(map(len, self.box)) * max(self.dtype.itemsize, 4), BAND_NBYTES)
        return band * 11 // 4 + sum(part.scratch_nbytes for part in self.parts)

    def values(self, read: Iterator[np.ndarray]) -> np.ndarray:
        """The box, of flat arrays that hold its sources in turn."""
        parts = [part.values(read) for part in self.parts]
        out = np.empty(tuple(map(len, self.box)), self.dtype)
        self.view.values(self.box, parts, out)
        return out

    def banded(self, read: Iterator[np.ndarray], axes: Sequence[int]) -> Iterator[tuple[Box, list[np.ndarray]]]:
        """The box in bands, each with the parts that its values are made of.

        `axes`: along which it is cut, those first of which one index goes furthest in memory.
        """
        parts = [part.values(read) for part in self.parts]
        limit = max(BAND_NBYTES // max(self.dtype.itemsize, 4), 1)
        if prod(map(len, self.box)) <= limit:
            yield self.box, parts
            return
        whole = self.view.boxes(self.box)
        for inner in _bands(self.box, self.view.grain, limit, axes):
            boxes = zip(parts, self.view.boxes(inner), whole, strict=True)
            yield inner, [part[within(small, large)] for part, small, large in boxes]


def within(inner: Box, outer: Box) -> tuple[slice, ...]:
    """Where a box lies in the memory of one around it."""
    return tuple([slice(i.start - o.start, i.stop - o.start) for i, o in zip(inner, outer, strict=True)])


def box_of(tensor: StoredTensor, box: Box, dtype: np.dtype | None = None) -> StoredBox | ComputedBox:
    """What is read for a box of a tensor that has elements. `dtype`: one it is `computed_in`, if not its own."""
    form = tensor.form
    if form.view is not None:
        boxes = form.view.boxes(box)
        parts = tuple([box_of(part, inner) for part, inner in zip(tensor.parts, boxes, strict=True)])
        return ComputedBox(form.view, box, dtype or form.dtype, parts)
    strides, size = stored_strides(form.shape, form.strides), form.dtype.itemsize
    start = sum(r.start * stride for r, stride in zip(box, strides, strict=True))
    apart, run = _runs(box, strides, size)
    firsts = [sum(steps) for steps in product(*([n * strides[a] for n in range(len(box[a]))] for a in apart))]
    inside, step = list(strides), run
    for axis in reversed(apart):
        inside[axis], step = step, step * len(box[axis])
    starts = tuple([(start + first) * size for first in firsts])
    return StoredBox(starts, run * size, tuple(map(len, box)), tuple(inside), form.dtype)


def _runs(box: Box, strides: Shape, itemsize: int) -> tuple[list[int], int]:
    """The axes along which each index is a run of its own, since what lies between is worth skipping, from the
    outermost one on; and how many elements a run has.
    """
    axes = sorted(range(len(box)), key=lambda axis: -strides[axis])
    run = 1 + sum((len(r) - 1) * stride for r, stride in zip(box, strides, strict=True))
    for number, axis in enumerate(axes):
        below = run - (len(box[axis]) - 1) * strides[axis]
        gap = strides[axis] - below
        if len(box[axis]) > 1 and not _is_wide(gap * itemsize, below * itemsize, len(box[axis])):
            return axes[:number], run
        run = below
    return axes, run


def _is_wide(gap_nbytes: int, run_nbytes: int, runs: int) -> bool:
    """Whether what lies between runs is left out. Values cost more than bytes: some more requests are soon made."""
    return gap_nbytes > (_PAGE if runs > _FEW else _PAGE // 4) or worth_skipping(gap_nbytes, run_nbytes)


def _cost(tensor: StoredTensor, box: Box) -> int:
    """Bytes that are read for a box, and what it takes to ask for each run of them."""
    form = tensor.form
    if form.view is not None:
        return sum(_cost(part, inner) for part, inner in zip(tensor.parts, form.view.boxes(box), strict=True))
    apart, run = _runs(box, stored_strides(form.shape, form.strides), form.dtype.itemsize)
    return prod(len(box[axis]) for axis in apart) * (run * form.dtype.itemsize + _REQUEST)


def stored_strides(shape: Shape, strides: Shape | None) -> Shape:
    """The strides of a stored tensor, in elements."""
    if strides is not None:
        return strides
    return tuple([prod(shape[axis + 1 :]) for axis in range(len(shape))])


def bands(tensor: StoredTensor, box: Box) -> Iterator[Box]:
    """A box of a tensor cut into boxes that are computed at a time, at multiples of the grain as far as it goes."""
    levels = max(_levels(tensor), 1)
    return _cut(tensor, box, max(BAND_NBYTES // (max(tensor.form.dtype.itemsize, 4) * levels), 1))


def reads(tensor: StoredTensor, box: Box) -> Iterator[Box]:
    """A box of a tensor cut into boxes that are read at a time, to be computed by `ComputedBox.banded`."""
    form = tensor.form
    if _levels(tensor) != 1 or not form.nbytes:
        return bands(tensor, box)
    limit = _READ_NBYTES * prod(form.shape) // form.nbytes
    first = next(_cut(tensor, box, limit), None)
    if first is None or _has_room(tensor, first):
        return _cut(tensor, box, limit)
    # Scales that all columns need, or rows that lie apart: boxes of fewer rows, or columns, may take less.
    found: list[tuple[float, int, int, int]] = []
    for each in (limit, limit // 2, limit // 4):
        for axis, pieces in product(range(len(box)), (1, 2, 4, 8, 16, 32)):
            width = -(-len(box[axis]) // pieces)
            part = (*box[:axis], range(box[axis].start, box[axis].start + width), *box[axis + 1 :])
            first = next(_cut(tensor, part, each), None)
            if first is not None and _has_room(tensor, first):
                found.append((_cost(tensor, first) / prod(map(len, first)), each, axis, width))
    if not found:
        return bands(tensor, box)
    _, each, axis, width = min(found)
    starts = range(box[axis].start, box[axis].stop, width)
    spans = (range(start, min(start + width, box[axis].stop)) for start in starts)
    return (one for r in spans for one in _cut(tensor, (*box[:axis], r, *box[axis + 1 :]), each))


def _has_room(tensor: StoredTensor, box: Box) -> bool:
    """Whether a thread may read and compute a box at once."""
    made = box_of(tensor, box)
    return made.read_nbytes + made.scratch_nbytes <= _THREAD_NBYTES


def _cut(tensor: StoredTensor, box: Box, limit: int) -> Iterator[Box]:
    form = tensor.form
    if 0 in form.shape:
        return iter(())
    if prod(map(len, box)) <= limit:
        return iter([box])
    grain = (1,) * len(box) if form.view is None else form.view.grain
    axes = [axis for axis, r in enumerate(box) if _step(box, axis, grain[axis], limit)[0] < len(r)]
    # Cut along the axis where the bands read least, as whole rows do: a part may be stored in another order.
    axes.sort(key=lambda axis: _cost_of_bands(tensor, box, axis, grain[axis], limit))
    return _bands(box, grain, limit, axes)


def _levels(tensor: StoredTensor) -> int:
    """How many tensors are computed, one of the other."""
    return (tensor.form.view is not None) + max(map(_levels, tensor.parts), default=0)


def _step(box: Box, axis: int, grain: int, limit: int) -> tuple[int, int]:
    """How many indices along an axis make a band, and what they are a multiple of: the grain, or half of it and so on
    where a band of one grain would be too large. What two bands share is then read twice; mostly that is scales.
    """
    beside = prod(len(other) for n, other in enumerate(box) if n != axis)
    while grain % 2 == 0 and beside * grain > limit:
        grain //= 2
    return max(limit // (beside * grain), 1) * grain, grain


def _cost_of_bands(tensor: StoredTensor, box: Box, axis: int, grain: int, limit: int) -> float:
    """What it takes to read all of a box by bands along an axis, as the first one tells."""
    r, (width, unit) = box[axis], _step(box, axis, grain, limit)
    first = range(r.start, min(r.stop, r.start // unit * unit + width))
    return _cost(tensor, (*box[:axis], first, *box[axis + 1 :])) * len(r) / len(first)


def _bands(box: Box, grain: Shape, limit: int, axes: Sequence[int]) -> Iterator[Box]:
    if not axes or prod(map(len, box)) <= limit:
        yield box
        return
    axis = axes[0]
    r, (width, unit) = box[axis], _step(box, axis, grain[axis], limit)
    for start in range(r.start // unit * unit, r.stop, width):
        part = range(max(r.start, start), min(r.stop, start + width))
        yield from _bands((*box[:axis], part, *box[axis + 1 :]), grain, limit, axes[1:])


def read_box(files: FileSource, tensor: StoredTensor, box: StoredBox | ComputedBox) -> np.ndarray:
    """The values of a box of a tensor. **Raises:** `CheckpointError` that names key and file."""
    return box.values(iter([_read(files, source) for source in box.sources(tensor)]))


def _read(files: FileSource, source: FileRun) -> np.ndarray:
    raw = np.empty(source.nbytes, np.uint8)
    try:
        files.byte_source(source.file).readinto([raw.data], source.offset)
    except CheckpointError as error:
        raise CheckpointError(f"key {quote(source.key)}", f": {error.statement}", error.advice) from error
    return raw.view(source.dtype)


def banded(files: FileSource, tensor: StoredTensor, dtype: np.dtype | None = None) -> Iterator[tuple[Box, np.ndarray]]:
    """All values of a tensor, a box at a time. **Raises:** `CheckpointError`, also where its parts contradict it."""
    for box in bands(tensor, tuple(map(range, tensor.form.shape))):
        made = box_of(tensor, box, dtype)
        read = [_read(files, source) for source in made.sources(tensor)]
        try:
            values = made.values(iter(read))
        except CheckpointError as error:
            raise CheckpointError(
                f"{quote(tensor.name)} in {quote(tensor.file)}", error.problem, error.advice
            ) from error
        yield box, values
