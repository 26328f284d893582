"""The proof that boxes fill an array exactly once: no hole, no overlap.

A box is a product of index sets, one for each axis. Along each axis, indices that no box tells apart are one cell, so
that the proof costs what the boxes cost and not what the array holds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise, product
from math import prod
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

from bridge.mapping.arrays import repeats
from bridge.mapping.indexmap import IndexMap, Shape

if TYPE_CHECKING:
    import numpy.typing as npt

Column: TypeAlias = "npt.NDArray[np.int64]"
Matrix: TypeAlias = "npt.NDArray[np.int64]"
Steps = tuple[tuple[int, int], ...]
"""Extents and steps of the loops along one axis."""


MOST_CELLS = 1 << 22
"""More than any checkpoint has; twenty axes of a few cells each would have more than there is memory."""
_MOST_LABELLED = 1 << 24


class TooManyCellsError(ValueError):
    """Boxes cut an array into more cells than can be looked at."""


class Boxes(NamedTuple):
    """Where boxes start that all run alike along each axis of one array; `starts` has a row for each."""

    steps: tuple[Steps, ...]
    starts: Matrix

    def holding(self, point: Shape) -> list[int]:
        """The boxes that have an element at `point`, by number."""
        inside = np.ones(len(self.starts), bool)
        for axis, steps in enumerate(self.steps):
            inside &= np.isin(point[axis] - self.starts[:, axis], _indices(0, steps))
        return [int(n) for n in np.flatnonzero(inside)]

    def touching(self, ranges: Sequence[range], without: Collection[int] = ()) -> npt.NDArray[np.bool_]:
        """For each box whether it has elements in `ranges`, those of some axes left aside."""
        found = np.ones(len(self.starts), bool)
        for axis, steps in enumerate(self.steps):
            if axis not in without:
                starts, runs = self.starts[:, axis], _indices(0, steps)
                if len(runs) == runs[-1] - runs[0] + 1:
                    found &= (starts + runs[0] < ranges[axis].stop) & (starts + runs[-1] >= ranges[axis].start)
                else:  # boxes with gaps are told apart index by index
                    found &= np.isin(ranges[axis].start - starts, runs)
        return found


def leaf_steps(index_map: IndexMap) -> tuple[Steps, ...]:
    """How a map runs along each axis of its leaf."""
    found: list[list[tuple[int, int]]] = [[] for _ in index_map.leaf_shape]
    for loop in index_map.loops:
        found[loop.leaf_axis].append((loop.extent, loop.leaf_step))
    return tuple(tuple(sorted(steps)) for steps in found)


def key_steps(index_map: IndexMap) -> tuple[Steps, ...]:
    """How a map runs along each axis of its tensor."""
    found: list[list[tuple[int, int]]] = [[] for _ in index_map.key_shape]
    for loop in index_map.loops:
        found[loop.key_axis].append((loop.extent, loop.key_step))
    return tuple(tuple(sorted(steps)) for steps in found)


class Cover(NamedTuple):
    """How often boxes fill an array: `holes` and `overlaps` as one half-open range for each axis."""

    holes: tuple[tuple[range, ...], ...]
    overlaps: tuple[tuple[range, ...], ...]

    def __bool__(self) -> bool:
        return not self.holes and not self.overlaps


def cover(shape: Shape, groups: Sequence[Boxes]) -> Cover:
    """Whether the boxes of all groups fill an array of `shape` exactly once.

    **Raises:** `TooManyCellsError`.
    """
    if prod(shape) == 0:
        return Cover((), ())
    if len(groups) == 1 and _stacked(shape, groups[0]):
        return Cover((), ())
    found = [[distinct(g.starts[:, axis], extent) for axis, extent in enumerate(shape)] for g in groups]
    axes = [
        _Cells(extent, [(int(n), g.steps[axis]) for g, f in zip(groups, found, strict=True) for n in f[axis][0]])
        for axis, extent in enumerate(shape)
    ]
    if prod(cells.count for cells in axes) > MOST_CELLS:
        raise TooManyCellsError
    counts = np.zeros([cells.count for cells in axes], np.int32)
    for group, uniques in zip(groups, found, strict=True):
        _count(counts, axes, group, uniques)
    return Cover(_ranges(axes, counts == 0), _ranges(axes, counts > 1))


def _count(
    counts: npt.NDArray[np.int32],
    axes: Sequence[_Cells],
    group: Boxes,
    uniques: Sequence[tuple[npt.NDArray[np.int64], npt.NDArray[np.intp]]],
) -> None:
    """Add the boxes of one group to how often each cell is filled."""
    cells = [
        [axis.of(int(start), steps) for start in values]
        for axis, steps, (values, _) in zip(axes, group.steps, uniques, strict=True)
    ]
    if not axes:
        counts += len(group.starts)
    elif all(len(found) == 1 for runs in cells for found in runs):
        # Each box is one cell of each axis: a stack. One call for all of them.
        places = [np.array([f[0] for f in runs])[inverse] for runs, (_, inverse) in zip(cells, uniques, strict=True)]
        flat = np.ravel_multi_index(places, counts.shape)
        counts += np.bincount(flat, minlength=counts.size).reshape(counts.shape)
    else:
        for number in range(len(group.starts)):
            counts[np.ix_(*(runs[inverse[number]] for runs, (_, inverse) in zip(cells, uniques, strict=True)))] += 1


def distinct(column: Column, extent: int) -> tuple[Column, npt.NDArray[np.intp]]:
    """The values of a column of starts, sorted, and which of them each start has. `extent` is that of its axis."""
    low = int(column.min())
    if (column == low).all():
        return column[:1], np.zeros(len(column), np.intp)
    if low < 0 or extent > 16 * len(column):
        return np.unique(column, return_inverse=True)
    # Few values: counting beats sorting.
    there = np.zeros(max(extent, int(column.max()) + 1), bool)
    there[column] = True
    return np.flatnonzero(there), (np.cumsum(there) - 1)[column]


def _stacked(shape: Shape, group: Boxes) -> bool:
    """Whether boxes, each one index or the whole of every axis, fill the array: as many as there is room for, no two
    alike. Most leaves are filled so.
    """
    room, starts = 1, group.starts
    first, last = starts.min(axis=0).tolist(), starts.max(axis=0).tolist()
    for extent, steps, low, high in zip(shape, group.steps, first, last, strict=True):
        if not steps:
            room *= extent
            if low < 0 or high >= extent:
                return False
        elif low != high or not _full(extent, steps, low):
            return False
    return room == len(starts) and not repeats(list(group.starts.T))


def _full(extent: int, steps: Steps, start: int) -> bool:
    """Whether a run covers its whole axis: loops that nest without gaps do."""
    if prod(n for n, _ in steps) != extent:
        return False
    return start + sum((n - 1) * step for n, step in steps if step < 0) == 0


def _indices(start: int, steps: Steps) -> npt.NDArray[np.intp]:
    """All indices that a run takes along its axis, sorted."""
    found = np.array([start], np.intp)
    for extent, step in steps:
        found = (found[:, None] + np.arange(extent, dtype=np.intp) * step).ravel()
    return np.sort(found)


class _Cells:
    """One axis cut into cells: maximal sets of indices that lie in just the same runs."""

    def __init__(self, extent: int, runs: Sequence[tuple[int, Steps]]) -> None:
        self.extent = extent
        self.runs: dict[tuple[int, Steps], npt.NDArray[np.intp]] = {}
        spans: dict[tuple[int, Steps], tuple[int, int] | None] = {run: self.span(*run) for run in dict.fromkeys(runs)}
        self.gapped = None in spans.values()
        if not self.gapped:
            cuts = sorted({0, extent, *(edge for span in spans.values() if span for edge in span)})
            place = {cut: n for n, cut in enumerate(cuts)}
            self.bounds = [range(a, b) for a, b in pairwise(cuts)]
            for run, span in spans.items():
                assert span is not None
                self.runs[run] = np.arange(place[span[0]], place[span[1]])
        else:
            self.refine(list(spans))
        self.count = len(self.bounds)

    def ranges(self, cells: range) -> list[range]:
        """The indices of neighbouring cells; where a run leaves gaps, an index of each."""
        if self.gapped:
            return [self.bounds[n] for n in cells]
        return [range(self.bounds[cells.start].start, self.bounds[cells.stop - 1].stop)]

    def span(self, start: int, steps: Steps) -> tuple[int, int] | None:
        """The interval that a run covers, or `None` where it leaves gaps."""
        if not steps:
            return start, start + 1
        count = prod(n for n, _ in steps)
        low = start + sum((n - 1) * step for n, step in steps if step < 0)
        width = 1 + sum((n - 1) * abs(step) for n, step in steps)
        return (low, low + width) if width == count else None

    def refine(self, runs: Sequence[tuple[int, Steps]]) -> None:
        """Cells by membership, where some run leaves gaps."""
        if self.extent > _MOST_LABELLED:
            raise TooManyCellsError
        labels = np.zeros(self.extent, np.intp)
        members = [_indices(*run) for run in runs]
        for indices in members:
            inside = np.zeros(self.extent, np.intp)
            inside[indices] = 1
            labels = np.unique(labels * 2 + inside, return_inverse=True)[1]
        _, first = np.unique(labels, return_index=True)
        self.bounds = [range(int(n), int(n) + 1) for n in first]
        for run, indices in zip(runs, members, strict=True):
            self.runs[run] = np.unique(labels[indices])

    def of(self, start: int, steps: Steps) -> npt.NDArray[np.intp]:
        """The cells of one run."""
        return self.runs[start, steps]


def _ranges(axes: Sequence[_Cells], found: npt.NDArray[np.bool_]) -> tuple[tuple[range, ...], ...]:
    """The cells of `found` as boxes: neighbours that are alike are one."""
    boxes = _boxes(found) if found.any() else ()
    return tuple(
        place for box in boxes for place in product(*(cells.ranges(r) for cells, r in zip(axes, box, strict=True)))
    )


def _boxes(found: npt.NDArray[np.bool_]) -> Iterator[tuple[range, ...]]:
    """An array of which something is set, as boxes of which all is."""
    if found.all():
        yield tuple(map(range, found.shape))
        return
    rows = found.reshape(len(found), -1)
    edges = np.flatnonzero((rows[1:] != rows[:-1]).any(axis=1)) + 1
    for start, stop in pairwise([0, *edges.tolist(), len(found)]):
        if rows[start].any():
            yield from ((range(start, stop), *box) for box in _boxes(found[start]))


def spans(shape: Shape, ranges: Sequence[range]) -> str:
    """Ranges as indexing text, whole trailing axes left out: `[7]`, `[0:4, 3]`."""
    shown = [str(r.start) if len(r) == 1 else f"{r.start}:{r.stop}" for r in ranges]
    while shown and len(ranges[len(shown) - 1]) == shape[len(shown) - 1]:
        shown.pop()
    return f"[{', '.join(':' if s == f'0:{n}' else s for s, n in zip(shown, shape, strict=False))}]" if shown else ""
