"""`scale · B @ A`, in tiles that do not depend on what is asked for: so every cut of a weight has the same bits."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import numpy as np

from bridge._errors import CheckpointError
from bridge.quantized.floats import BFLOAT16, widen
from bridge.quantized.view import Array, Scratch

ROWS = 24
_WIDTH, _COUNT, _EDGE = 240, 8, 8
_TOGETHER = 5 * ROWS  # rows of one call: more leave the cache
COLUMNS = _WIDTH * _COUNT
"""Of a tile: whole rows of most weights in a band.

A tile is several products of one small shape, with zeros at both edges. For these the libraries of numpy and PyTorch
add in the same order, one term after the other, where they differ by some bits along the edges of larger ones. They
are small enough, too, to be computed by the thread that asks.
"""
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
        first = rows.start // ROWS * ROWS
        for left in range(columns.start // column_step * column_step, columns.stop, column_step):
            start = left - self.column_start
            cut = self.a[:, start : start + column_step]
            whole = range(left, left + cut.shape[1])
            those = common(columns, whole)
            inside = within(those, whole)
            a = _in_pieces(cut.reshape(len(cut), -1), scratch)
            for top in range(first, rows.stop, _TOGETHER):
                tall = range(top, top + _TOGETHER)
                some = common(rows, tall)
                delta = self._multiply(top - self.row_start, a, scratch)[:, : len(whole) * prod(kernel)]
                if kernel:
                    delta = delta.reshape(len(delta), len(whole), *kernel)
                yield some, those, delta[within(some, tall), inside]

    def _multiply(self, start: int, a: Array, scratch: Scratch) -> Array:
        """The products of some rows of B from `start` on, as far as they go, with pieces of A."""
        rows = self.b[start : start + _TOGETHER]
        count = -(-len(rows) // ROWS)
        b = scratch.take("b", (count * ROWS, rows.shape[1]), FLOAT32)
        np.copyto(b[: len(rows)], rows)
        b[len(rows) :] = 0
        made = scratch.take("product", (count, len(a), ROWS, a.shape[2]), FLOAT32)
        np.matmul(b.reshape(count, 1, ROWS, -1), a, out=made)
        out = scratch.take("delta", (count * ROWS, len(a) * _WIDTH), FLOAT32)
        inside = made[..., _EDGE : _EDGE + _WIDTH].transpose(0, 2, 1, 3)
        np.multiply(inside, self.scale, out=out.reshape(count, ROWS, len(a), _WIDTH))
        return out


def _in_pieces(a: Array, scratch: Scratch) -> Array:
    """Columns of a matrix as `(pieces, r, width)` in float32, with zeros around."""
    count = -(-a.shape[1] // _WIDTH)
    out = scratch.take("a", (count, a.shape[0], _WIDTH + 2 * _EDGE), FLOAT32)
    out[:] = 0
    for number in range(count):
        piece = a[:, number * _WIDTH : (number + 1) * _WIDTH]
        np.copyto(out[number, :, _EDGE : _EDGE + piece.shape[1]], piece)
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
    """Values into `out`, rounded once. The caller has silenced what overflows.

    **Raises:** `CheckpointError` for a finite one that float16 has no room for.
    """
    np.copyto(out, values, casting="unsafe")
    if out.dtype == _FLOAT16 and values.dtype != _FLOAT16:
        lost = np.isinf(out) & np.isfinite(values)
        if lost.any():
            largest = float(values[lost][0])
            raise CheckpointError(
                "a value",
                f"comes to {largest:.6g} with the adapter, which does not fit into float16",
                "Load it with dtype='bfloat16'",
            )


def added(values: Array, others: Array, out: Array, scratch: Scratch, dtype: np.dtype) -> None:
    """A sum in `dtype`, rounded once into `out`."""
    total = out if out.dtype == dtype else scratch.take("sum", out.shape, dtype)
    np.add(wide(values, "wide", dtype, scratch), others, out=total)
    if total is not out:
        narrowed(total, out)
