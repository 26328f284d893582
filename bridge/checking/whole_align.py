"""Which elements of an array in the traced run are those that were recorded of a tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from math import prod
from operator import mul
from typing import Any, NamedTuple

import numpy as np

from bridge.checking.kept import Kept
from bridge.mapping.arrays import Numbers, Shape

TorchView = Callable[[Any], Any]
"""An array of the run in the shape that PyTorch has it in. Takes numpy's arrays and JAX's."""


class Wanted(NamedTuple):
    """A recorded tensor, and which columns of it (`theirs`) are which of a layer's array (`own`); `None`: all.
    `shared`: the layer's array may be the same for every example, and have no axis for them.
    """

    kept: Kept
    own: Numbers | None = None
    theirs: Numbers | None = None
    shared: bool = True

    @property
    def shapes(self) -> Iterator[Shape]:
        """Those that the layer's array may have; axes of one element aside."""
        if self.own is None and self.theirs is None:
            yield self.kept.shape
        elif self.own is not None:
            yield (*self.kept.shape[:-1], -1)  # a part of the layer's columns, whose number the array says
        else:
            yield (*self.kept.shape[:-1], len(self.theirs if self.theirs is not None else ()))

    def view(self, shape: Shape) -> TorchView | None:
        """How an array of `shape` becomes one of the tensor's; `None` where it can not."""
        for wanted in self.shapes:
            wanted = (*wanted[:-1], shape[-1]) if wanted and wanted[-1] == -1 and shape else wanted
            found = view(shape, wanted, shared=self.shared)
            if found is not None and (self.own is None or max(self.own, default=-1) < wanted[-1]):
                return found
        return None

    def pair(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The array's elements and the recorded ones. `rows`: those rows of the array that are kept."""
        matrix, columns = self.kept.matrix, self.kept.columns
        count = min(len(rows), len(matrix))  # both are the first of one order
        rows, matrix = rows[:count], matrix[:count]
        if self.own is None and self.theirs is None:
            return rows[:, columns], matrix
        theirs = np.arange(self.kept.width) if self.theirs is None else self.theirs
        own = np.arange(len(theirs)) if self.own is None else self.own
        places = {column: place for place, column in enumerate(columns.tolist())}
        both = [
            (mine, places[other]) for mine, other in zip(own.tolist(), theirs.tolist(), strict=True) if other in places
        ]
        return rows[:, [mine for mine, _ in both]], matrix[:, [place for _, place in both]]


def view(shape: Shape, wanted: Shape, *, shared: bool = True) -> TorchView | None:
    """How an array of `shape` becomes one of shape `wanted`: as it is, with axes joined or split, exchanged where
    their extents tell them apart, or, if that is `shared`, the same for every example.
    """
    if shape == wanted:
        return lambda array: array
    own, theirs = _without_ones(shape), _without_ones(wanted)
    if own == theirs or (prod(shape) == prod(wanted) and _regrouped(own, theirs)):
        return lambda array: array.reshape(wanted)
    order = _order(own, theirs)
    if order is not None:
        return lambda array: array.reshape(own).transpose(order).reshape(wanted)
    if shared and len(own) < len(theirs) and own and theirs[-len(own) :] == own:
        copies = prod(theirs[: -len(own)])
        # What is the same for every example is compared with each of them.
        return lambda array: _repeated(array.reshape(own), copies).reshape(wanted)
    return None


def _order(own: Shape, theirs: Shape) -> list[int] | None:
    """The order of axes that makes one shape of the other. Height and width of a square follow each other in both:
    neighbours of one extent stay in their order; others of one extent nothing tells apart.
    """
    if sorted(own) != sorted(theirs):
        return None
    order: list[int] = []
    for extent in dict.fromkeys(theirs):
        places = [[n for n, other in enumerate(shape) if other == extent] for shape in (own, theirs)]
        if any(held[-1] - held[0] >= len(held) for held in places):
            return None
        order += places[0]
    return order


def _repeated(array: Any, copies: int) -> Any:
    flat = array.reshape(1, -1)
    return flat.repeat(copies, axis=0)


def _without_ones(shape: Shape) -> Shape:
    return tuple(extent for extent in shape if extent != 1)


def _regrouped(one: Shape, other: Shape) -> bool:
    """Whether one shape has neighbouring axes of the other joined."""
    a, b = (set(accumulate(reversed(shape), mul)) for shape in (one, other))
    return a <= b or b <= a


class RunArray(NamedTuple):
    """An array of the run, at one place of its stack; of one that was cut to the recorded rows those, as a matrix."""

    values: np.ndarray
    shape: Shape

    @property
    def cut(self) -> bool:
        """Whether only rows of it are there."""
        return self.values.shape != self.shape

    def rows(self, found: TorchView, kept: Kept) -> np.ndarray:
        """The rows that are kept of the tensor, or as many of the first of them as there are."""
        if self.cut:
            return self.values
        turned = np.asarray(found(self.values))
        return turned.reshape(-1, turned.shape[-1] if turned.ndim else 1)[kept.rows]


def first_fit(wanted: Sequence[Wanted], shapes: Sequence[Shape]) -> tuple[int, int, TorchView] | None:
    """The first array that fits a recorded tensor: its number, the tensor's, and how it does."""
    for number, shape in enumerate(shapes):
        for place, one in enumerate(wanted):
            found = one.view(shape) if one.kept.values is not None else None
            if found is not None:
                return number, place, found
    return None


def distance(got: np.ndarray, want: np.ndarray) -> float:
    """The root mean square of the difference, in that of what was recorded; 0 where both are the same."""
    mine, theirs = np.asarray(got, np.float64), np.asarray(want, np.float64)
    same = (mine == theirs) | (np.isnan(mine) & np.isnan(theirs))
    if same.all():
        return 0.0
    usable = np.isfinite(theirs) & ~same
    if not np.isfinite(mine[usable]).all() or (np.isfinite(mine) != np.isfinite(theirs))[~same].any():
        return float("inf")
    off = np.where(same, 0.0, mine - theirs)
    size = float(np.sqrt(np.mean(np.where(np.isfinite(theirs), theirs, 0.0) ** 2)))
    return float(np.sqrt(np.mean(np.where(np.isfinite(off), off, 0.0) ** 2))) / size if size else float("inf")
