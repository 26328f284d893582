"""The proof that boxes fill an array once, against counting every element."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bridge.mapping.cover import Boxes, cover, spans


def matrix(starts: list[tuple[int, ...]]) -> np.ndarray:
    return np.array(starts, np.int64).reshape(len(starts), -1 if starts[0] else 0)


@st.composite
def coverings(draw: st.DrawFn) -> tuple[tuple[int, ...], list[Boxes]]:
    """An array of up to three axes, and boxes of one or two loops along each axis."""
    shape = tuple(draw(st.lists(st.integers(0, 6), max_size=3)))
    groups: list[Boxes] = []
    for _ in range(draw(st.integers(0, 3))):
        steps = tuple(tuple(sorted(draw(_runs(extent)))) for extent in shape)
        starts = [
            tuple(draw(st.integers(*_bounds(extent, run))) for extent, run in zip(shape, steps, strict=True))
            for _ in range(draw(st.integers(1, 3)))
        ]
        if all(extent > 0 for extent in shape):
            groups.append(Boxes(steps, matrix(starts)))
    return shape, groups


@st.composite
def _runs(draw: st.DrawFn, extent: int) -> list[tuple[int, int]]:
    """Atoms that stay inside an axis and never meet an element twice."""
    if extent < 2 or draw(st.booleans()):
        return []
    step = draw(st.integers(1, extent - 1))
    count = draw(st.integers(1, (extent - 1) // step + 1))
    loops = [(count, draw(st.sampled_from((step, -step))))]
    if step > 1 and draw(st.booleans()):
        inner = draw(st.integers(1, step))
        if (count - 1) * step + inner <= extent:
            loops.append((inner, 1))
    return loops


def _bounds(extent: int, run: tuple[tuple[int, int], ...]) -> tuple[int, int]:
    low = -sum((n - 1) * step for n, step in run if step < 0)
    high = extent - 1 - sum((n - 1) * step for n, step in run if step > 0)
    return low, max(low, high)


def counted(shape: tuple[int, ...], groups: list[Boxes]) -> np.ndarray:
    counts = np.zeros(shape, int)
    for steps, starts in groups:
        for start in starts:
            axes = []
            for first, run in zip(start, steps, strict=True):
                indices = np.array([first])
                for extent, step in run:
                    indices = (indices[:, None] + np.arange(extent) * step).ravel()
                axes.append(indices)
            counts[np.ix_(*axes)] += 1
    return counts


@given(coverings())
def test_holes_and_overlaps_are_those_that_counting_finds(case: tuple[tuple[int, ...], list[Boxes]]):
    shape, groups = case
    counts = counted(shape, groups)
    found = cover(shape, groups)
    holes, overlaps = np.zeros(shape, bool), np.zeros(shape, bool)
    for mask, ranges in ((holes, found.holes), (overlaps, found.overlaps)):
        for cell in ranges:
            part = mask[tuple(slice(r.start, r.stop) for r in cell)]
            assert part.size > 0
            mask[tuple(slice(r.start, r.stop) for r in cell)] = True
    # A cell stands for all indices that no box tells apart; where boxes leave gaps it shows the first of them.
    assert (holes <= (counts == 0)).all()
    assert (overlaps <= (counts > 1)).all()
    assert bool(found.holes) == bool((counts == 0).any())
    assert bool(found.overlaps) == bool((counts > 1).any())
    assert bool(found) == bool((counts == 1).all())


@given(coverings())
def test_the_boxes_that_hold_a_point(case: tuple[tuple[int, ...], list[Boxes]]):
    shape, groups = case
    for group in groups:
        for point in np.ndindex(*shape):
            alone = [counted(shape, [Boxes(group.steps, start[None])])[point] > 0 for start in group.starts]
            assert group.holding(point) == [n for n, inside in enumerate(alone) if inside]


def test_a_stack_of_many_is_counted_at_once():
    steps = ((), (), ((4, 1),))
    starts = [(a, b, 0) for a in range(300) for b in range(300)]
    assert cover((300, 300, 4), [Boxes(steps, matrix(starts))])
    found = cover((300, 300, 4), [Boxes(steps, matrix([*starts[:7], *starts[8:], starts[0]]))])
    assert found.holes == ((range(1), range(7, 8), range(4)),)
    assert found.overlaps == ((range(1), range(1), range(4)),)


def test_places_are_written_as_indexing():
    assert spans((3, 4), (range(2, 3), range(4))) == "[2]"
    assert spans((3, 4), (range(3), range(1, 2))) == "[:, 1]"
    assert spans((3, 4), (range(1, 3), range(1, 3))) == "[1:3, 1:3]"
    assert spans((3, 4), (range(3), range(4))) == ""
    assert spans((), ()) == ""
