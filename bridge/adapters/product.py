"""`scale · B @ A`, in tiles that do not depend on what is asked for: so every cut of a weight has the same bits."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import numpy as np

from bridge._errors import CheckpointError
from bridge.quantized.floats import BFLOAT16, widen
from bridge.quantized.view import Array, Scratch

ROWS, COLUMNS = 16, 2048
"""Of a tile: whole rows of most weights in a band, and enough of them for a product at full speed."""
_PADDED = 64
FLOAT32 = np.dtype(np.float32)
_FLOAT16 = np.dtype(np.float16)


def covering(span: range, step: int, extent: int) -> range:
    """Whole tiles of `step` indices around a span, up to the end of the axis."""
    return range(span.start // step * step, min(-(-span.stop // step) * step, extent)) if span else span


def common(one: range, two: range) -> range:
    """The indices that two spans share."""
    return range(max(one.start, two.start), min(one.stop, two.stop))


def within(inner: range, outer: range) -> slice:
    """Where a span lies in memory that starts where another does."""
    return slice(inner.start - outer.start, inner.stop - outer.start)


class Factors:
    """The factors of one matrix, as far as they are read: whole tiles of rows and of columns.

    - `b`: of shape `(rows, r)`; `a`: of shape `(r, columns, kernel…)`.
    - `row_start`, `column_start`: the first of each.
    - `scale`: what their product is multiplied by.
    """

    def __init__(self, b: Array, a: Array, *, row_start: int, column_start: int, scale: float) -> None:
        self.b, self.a, self.row_start, self.column_start = b, a, row_start, column_start
        self.scale = np.float32(scale)

    def products(
        self, rows: range, columns: range, *, column_step: int, scratch: Scratch
    ) -> Iterator[tuple[range, range, Array]]:
        """`scale · b @ a` for some rows and columns, a tile at a time: which of them, and the values, with the kernel's
        axes behind. Product and scale are in float32, as PEFT makes them.
        """
        kernel = self.a.shape[2:]
        for left in range(columns.start // column_step * column_step, columns.stop, column_step):
            start = left - self.column_start
            cut = self.a[:, start : start + column_step]
            a = _padded(cut.reshape(len(cut), -1), "a", scratch, (1, _PADDED))
            whole = range(left, left + cut.shape[1])
            for top in range(rows.start // ROWS * ROWS, rows.stop, ROWS):
                start = top - self.row_start
                b = _padded(self.b[start : start + ROWS], "b", scratch, (ROWS, 1))
                delta = scratch.take("product", (ROWS, a.shape[1]), FLOAT32)
                np.matmul(b, a, out=delta)
                if self.scale != 1:
                    np.multiply(delta, self.scale, out=delta)
                some, those = common(rows, range(top, top + ROWS)), common(columns, whole)
                shaped = delta[:, : len(whole) * prod(kernel)]
                if kernel:
                    shaped = shaped.reshape(ROWS, len(whole), *kernel)
                yield some, those, shaped[within(some, range(top, top + ROWS)), within(those, whole)]


def _padded(values: Array, name: str, scratch: Scratch, multiples: tuple[int, int]) -> Array:
    """A matrix as float32 in one run, filled up with zeros: products of even shapes go one way through the library."""
    rows, columns = (-(-n // step) * step for n, step in zip(values.shape, multiples, strict=True))
    out = scratch.take(name, (rows, columns), FLOAT32)
    np.copyto(out[: values.shape[0], : values.shape[1]], values)
    out[values.shape[0] :] = 0
    out[:, values.shape[1] :] = 0
    return out


def wide(values: Array, name: str, dtype: np.dtype, scratch: Scratch) -> Array:
    """Values in `dtype`, which holds all of them."""
    if values.dtype == dtype:
        return values
    out = scratch.take(name, values.shape, dtype)
    if values.dtype == BFLOAT16 and dtype == FLOAT32 and values.flags.c_contiguous:
        widen(values.view(np.uint16), out, scratch)
    else:
        np.copyto(out, values)
    return out


def narrowed(values: Array, out: Array) -> None:
    """Values into `out`, rounded once.

    **Raises:** `CheckpointError` for a finite one that float16 has no room for.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        np.copyto(out, values, casting="unsafe")
    if out.dtype == _FLOAT16 and values.dtype != _FLOAT16:
        lost = np.isinf(out) & np.isfinite(values)
        if lost.any():
            largest = float(values[lost][0])
            raise CheckpointError(
                f"comes to {largest:.6g} with the adapter, which float16 has no room for: load it with dtype='bfloat16'"
            )


def added(values: Array, others: Array, out: Array, scratch: Scratch, dtype: np.dtype) -> None:
    """A sum in `dtype`, rounded once into `out`."""
    total = out if out.dtype == dtype else scratch.take("sum", out.shape, dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        np.add(wide(values, "wide", dtype, scratch), others, out=total)
    if total is not out:
        narrowed(total, out)
