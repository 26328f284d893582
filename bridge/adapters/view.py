"""A weight with low-rank factors on top: what of them is behind a box of it, and the sum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import numpy as np

from bridge.adapters.product import (
    COLUMNS,
    FLOAT32,
    ROWS,
    Factors,
    added,
    covering,
    narrowed,
    wide,
    within,
)
from bridge.quantized.view import Array, Box, Scratch, Shape, thread_scratch

_FLOAT64 = np.dtype(np.float64)
_ROW_ELEMENTS = 1 << 17  # whole rows that are computed at a time for their norms


class _Sides(NamedTuple):
    """A box of a weight as one of matrices: `experts` is `None` where it is but one."""

    experts: range | None
    rows: range
    columns: range
    kernel: Box


@dataclass(frozen=True)
class Merged:
    """`W + scale · B @ A`, computed in float32 (float64 where the weight has it) and rounded once.

    Its parts are the weight, B, A, and with DoRA the magnitudes.

    - `shape`: of the weight.
    - `row_axis`, `column_axis`: which of its axes are the rows of B and the columns of A. Those behind both are a
        convolution's kernel; one that is before both counts experts.
    - `rank`, `scale`: of the factors.
    - `a_shape`, `b_shape`: of the factors as they are stored.
    - `rounds`: the product is rounded to the weight's dtype before it is added, as PEFT does for some modules.
    - `magnitude`: with DoRA the shape of the magnitudes as they are stored. Each row gets the norm that they say.
    """

    shape: Shape
    row_axis: int
    column_axis: int
    rank: int
    scale: float
    a_shape: Shape
    b_shape: Shape
    rounds: bool = False
    magnitude: Shape | None = None

    @property
    def _kernel(self) -> Shape:
        return self.shape[max(self.row_axis, self.column_axis) + 1 :]

    @property
    def _column_step(self) -> int:
        """Columns of a tile. With a kernel each is several of the product."""
        return max(COLUMNS // max(prod(self._kernel), 1), 1)

    @property
    def grain(self) -> Shape:
        """As in `View`: whole tiles; with DoRA whole rows."""
        steps = list(self.shape)  # of a kernel all
        if min(self.row_axis, self.column_axis) == 1:
            steps[0] = 1
        if self.magnitude is not None:
            steps[self.row_axis] = 1
        else:
            steps[self.row_axis] = min(ROWS, self.shape[self.row_axis])
            steps[self.column_axis] = min(self._column_step, self.shape[self.column_axis])
        return tuple([max(step, 1) for step in steps])

    def _sides(self, box: Box) -> _Sides:
        last = max(self.row_axis, self.column_axis) + 1
        experts = box[0] if min(self.row_axis, self.column_axis) == 1 else None
        return _Sides(experts, box[self.row_axis], box[self.column_axis], box[last:])

    def _read(self, box: Box) -> tuple[range, range]:
        """The rows of B and the columns of A that are read for a box."""
        columns = range(self.shape[self.column_axis])
        if self.magnitude is None:
            columns = covering(box[self.column_axis], self._column_step, len(columns))
        return covering(box[self.row_axis], ROWS, self.shape[self.row_axis]), columns

    def boxes(self, box: Box) -> Sequence[Box]:
        """As in `View`."""
        experts, wanted, _, _ = self._sides(box)
        rows, columns = self._read(box)
        first = range(self.rank)
        if experts is not None:
            first = range(experts.start * self.rank, experts.stop * self.rank)
        a = (first, columns, *map(range, self.a_shape[2:]))
        b = (rows, *map(range, self.b_shape[1:]))
        if self.magnitude is None:
            return box, b, a
        whole = list(map(range, self.shape))
        whole[self.row_axis] = wanted
        return tuple(whole), b, a, tuple([wanted if n > 1 else range(n) for n in self.magnitude])

    def values(self, box: Box, parts: Sequence[Array], out: Array) -> None:
        """As in `View`."""
        if not out.size:
            return
        # Once for all tiles: what is too large is infinite, as everywhere.
        with thread_scratch() as scratch, np.errstate(all="ignore"):
            self._all(box, parts, out, scratch)

    def _all(self, box: Box, parts: Sequence[Array], out: Array, scratch: Scratch) -> None:
        """Each matrix of a box."""
        weight, b, a, *magnitudes = parts
        sides = self._sides(box)
        rows, columns = self._read(box)
        place = {"row_start": rows.start, "column_start": columns.start}
        for number in range(1 if sides.experts is None else len(sides.experts)):
            if sides.experts is None:
                w, target, own_b, own_a = (
                    weight,
                    out,
                    b.reshape(len(b), self.rank),
                    a.reshape(*a.shape[:2], *self._kernel),
                )
            else:
                w, target = weight[number], out[number]
                own_b = b.reshape(len(b), self.rank, -1)[:, :, sides.experts[number]]
                own_a = a[number * self.rank : (number + 1) * self.rank]
            if self.row_axis > self.column_axis:  # a view of the same memory, rows first
                w, target = w.swapaxes(0, 1), target.swapaxes(0, 1)
            factors = Factors(own_b, own_a, **place, scale=self.scale)
            if magnitudes:
                self._rescaled(w, factors, magnitudes[0].reshape(-1), target, sides, scratch)
            else:
                self._added(w, factors, target, sides, scratch)

    def _added(self, w: Array, factors: Factors, out: Array, sides: _Sides, scratch: Scratch) -> None:
        """The sum of a box, tile by tile."""
        dtype = _FLOAT64 if _FLOAT64 in (w.dtype, out.dtype) else FLOAT32
        # The second rounding is that to the base's dtype: where the model has another one there is none.
        through = self.rounds and w.dtype == out.dtype and w.dtype.itemsize == 2
        inside = tuple([slice(r.start, r.stop) for r in sides.kernel])
        tiles = factors.products(sides.rows, sides.columns, column_step=self._column_step, scratch=scratch)
        for rows, columns, delta in tiles:
            delta = delta[(slice(None), slice(None), *inside)]
            if through:
                rounded = scratch.take("rounded", delta.shape, w.dtype)
                narrowed(delta, rounded)
                delta = wide(rounded, "widened", FLOAT32, scratch)
            at = within(rows, sides.rows), within(columns, sides.columns)
            added(w[at], delta, out[at], scratch, dtype)

    def _rescaled(
        self, w: Array, factors: Factors, magnitudes: Array, out: Array, sides: _Sides, scratch: Scratch
    ) -> None:
        """DoRA: rows of `W + delta`, each as long as its magnitude says. The norm is that of the whole row."""
        dtype = _FLOAT64 if _FLOAT64 in (w.dtype, out.dtype) else FLOAT32
        width = self.shape[self.column_axis]
        step = max(min(ROWS, _ROW_ELEMENTS // max(width * prod(self._kernel), 1)), 1)
        cut = (sides.columns, *sides.kernel)
        inside = (slice(None), *[slice(r.start, r.stop) for r in cut])
        for top in range(sides.rows.start, sides.rows.stop, step):
            rows = range(top, min(top + step, sides.rows.stop))
            at = within(rows, sides.rows)
            total = np.empty((len(rows), *w.shape[1:]), dtype)
            whole = _Sides(None, rows, range(width), tuple(map(range, self._kernel)))
            self._added(w[at], factors, total, whole, scratch)
            flat = total.reshape(len(rows), -1)
            norms = np.sqrt(np.add.reduce(np.square(flat, dtype=_FLOAT64), axis=1)).astype(dtype)
            flat *= (magnitudes[at].astype(dtype) / norms)[:, None]
            narrowed(total[inside], out[at])
