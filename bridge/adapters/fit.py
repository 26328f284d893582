"""Whether factors fit a weight, by shapes alone, and which way round."""

from __future__ import annotations

from math import prod

from bridge.adapters.change import LowRank
from bridge.adapters.view import Merged
from bridge.quantized.view import Shape


def fitted(change: LowRank, shape: Shape, a: Shape, b: Shape, *, magnitude: Shape | None, rounds: bool) -> Merged | str:
    """The view of a weight with factors on top, or what does not fit.

    **Arguments:**

    - `change`: what the adapter says; of a square weight only its flag tells which way it is stored.
    - `shape`: of the weight; `a`, `b`: of its factors.
    - `magnitude`: of DoRA's magnitudes.
    - `rounds`: as in `Merged`.
    """
    if min(map(len, (shape, a, b))) < 2 or 0 in (*shape, *a, *b):
        return "a weight and its factors have two axes at least"
    found = _experts(change, shape, a, b) if change.parameter and len(shape) == 3 else _matrix(change, shape, a, b)
    if isinstance(found, str):
        return found
    row_axis, column_axis, rank = found
    if change.rank is not None and change.rank != rank:
        return f"the config says r={change.rank}, the factors have {rank}"
    if magnitude is not None and prod(magnitude) != shape[row_axis]:
        return f"there are {prod(magnitude)} magnitudes for {shape[row_axis]} rows"
    return Merged(shape, row_axis, column_axis, rank, change.scale, a, b, rounds, magnitude)


def _matrix(change: LowRank, shape: Shape, a: Shape, b: Shape) -> tuple[int, int, int] | str:
    """Axes and rank of one matrix, or of a convolution's weight as one."""
    rank = a[0]
    made = (b[0], *a[1:])
    kernel = a[2:]
    if len(shape) == 2 and set(kernel) <= {1}:
        made, kernel = made[:2], ()  # factors of a Linear that are written as those of a convolution
    if len(shape) > 2 and len(a) == 2 and set(shape[2:]) == {1}:
        made, kernel = (*made, *shape[2:]), shape[2:]
    if b[1] != rank or set(b[2:]) - {1}:
        return f"B is {list(b)}, A is {list(a)}: they have no rank in common"
    if kernel or not (change.embedding or change.flipped):
        ways = ((0, 1), (1, 0))
    else:
        ways = ((1, 0), (0, 1))
    for row_axis, column_axis in ways[: 1 if len(shape) > 2 or change.embedding else 2]:
        if tuple(shape[axis] for axis in (row_axis, column_axis, *range(2, len(shape)))) == made:
            return row_axis, column_axis, rank
    return f"it is {list(shape)}, B @ A is {list(made)}"


def _experts(change: LowRank, shape: Shape, a: Shape, b: Shape) -> tuple[int, int, int] | str:
    """Axes and rank of weights of several experts, whose factors lie side by side."""
    experts = shape[0]
    if len(a) != 2 or len(b) != 2 or a[0] != b[1] or a[0] % experts:
        return f"it is {list(shape)}, the factors are {list(b)} and {list(a)}, no whole rank for each of {experts}"
    rank = a[0] // experts
    ways = [axes for axes in ((1, 2), (2, 1)) if (shape[axes[0]], shape[axes[1]]) == (b[0], a[1])]
    if len(ways) > 1:
        return f"it is {list(shape)}, square: nothing says which way round its factors go"
    return (*ways[0], rank) if ways else f"it is {list(shape)}, B @ A of an expert is {[b[0], a[1]]}"
