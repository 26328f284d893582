"""The proof that boxes fill an array exactly once: no hole, no overlap.

A box is a product of index sets, one for each axis. Along each axis, indices that no box tells apart are one cell, so that
the proof costs what the boxes cost and not what the array holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt

from bridge.mapping.indexmap import IndexMap, Shape

Steps = tuple[tuple[int, int], ...]
"""Extents and steps of the atoms along one axis."""


@dataclass(frozen=True, slots=True)
class Box:
    """Where a map starts and how it runs along each axis of one array."""

    start: Shape
    steps: tuple[Steps, ...]


def leaf_steps(index_map: IndexMap) -> tuple[Steps, ...]:
    """How a map runs along each axis of its leaf."""
    found: list[list[tuple[int, int]]] = [[] for _ in index_map.leaf_shape]
    for atom in index_map.atoms:
        found[atom.leaf_axis].append((atom.extent, atom.leaf_step))
    return tuple(tuple(sorted(steps)) for steps in found)


def key_steps(index_map: IndexMap) -> tuple[Steps, ...]:
    """How a map runs along each axis of its tensor."""
    found: list[list[tuple[int, int]]] = [[] for _ in index_map.key_shape]
    for atom in index_map.atoms:
        found[atom.key_axis].append((atom.extent, atom.key_step))
    return tuple(tuple(sorted(steps)) for steps in found)


@dataclass(frozen=True, slots=True)
class Cover:
    """How often boxes fill an array: `holes` and `overlaps` as one half-open range for each axis, the first few of each."""

    holes: tuple[tuple[range, ...], ...]
    overlaps: tuple[tuple[range, ...], ...]

    def __bool__(self) -> bool:
        return not self.holes and not self.overlaps


def cover(shape: Shape, boxes: Sequence[Box], limit: int = 1000) -> Cover:
    """Whether `boxes` fill an array of `shape` exactly once."""
    if prod(shape) == 0:
        return Cover((), ())
    if len(boxes) == 1 and all(_full(n, s, a) for n, s, a in zip(shape, boxes[0].steps, boxes[0].start, strict=True)):
        return Cover((), ())
    axes = [_Cells(extent, [(b.start[axis], b.steps[axis]) for b in boxes]) for axis, extent in enumerate(shape)]
    counts = np.zeros([cells.count for cells in axes], np.int32)
    if all(cells.single for cells in axes):
        # Each box is one cell of each axis: a stack. One call for all of them.
        places = tuple(np.fromiter((cells.first(b.start[n], b.steps[n]) for b in boxes), np.intp) for n, cells in enumerate(axes))
        np.add.at(counts, places, 1)
    else:
        for box in boxes:
            counts[np.ix_(*(cells.of(box.start[n], box.steps[n]) for n, cells in enumerate(axes)))] += 1
    return Cover(_ranges(axes, counts == 0, limit), _ranges(axes, counts > 1, limit))


def _full(extent: int, steps: Steps, start: int) -> bool:
    """Whether a run covers its whole axis: atoms that nest without gaps do."""
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
        if all(span is not None for span in spans.values()):
            cuts = sorted({0, extent, *(edge for span in spans.values() if span for edge in span)})
            place = {cut: n for n, cut in enumerate(cuts)}
            self.bounds = [range(a, b) for a, b in zip(cuts, cuts[1:], strict=False)]
            for run, span in spans.items():
                assert span is not None
                self.runs[run] = np.arange(place[span[0]], place[span[1]])
        else:
            self.refine(list(spans))
        self.count = len(self.bounds)
        self.single = all(len(cells) == 1 for cells in self.runs.values())

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

    def first(self, start: int, steps: Steps) -> int:
        """The first cell of one run."""
        return int(self.runs[start, steps][0])


def _ranges(axes: Sequence[_Cells], found: npt.NDArray[np.bool_], limit: int) -> tuple[tuple[range, ...], ...]:
    places = np.argwhere(found)[:limit]
    return tuple(tuple(cells.bounds[int(n)] for cells, n in zip(axes, place, strict=True)) for place in places)


def spans(shape: Shape, ranges: Sequence[range]) -> str:
    """Ranges as indexing text, whole trailing axes left out: `[7]`, `[0:4, 3]`."""
    shown = [str(r.start) if len(r) == 1 else f"{r.start}:{r.stop}" for r in ranges]
    while shown and len(ranges[len(shown) - 1]) == shape[len(shown) - 1]:
        shown.pop()
    return f"[{', '.join(':' if s == f'0:{n}' else s for s, n in zip(shown, shape, strict=False))}]" if shown else ""


__all__ = ["Box", "Cover", "cover", "key_steps", "leaf_steps", "spans"]
