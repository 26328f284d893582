"""Copies between arrays that run in different orders: matrices transposed in tiles that stay in the cache."""

from __future__ import annotations

from itertools import product

import numpy as np

_ROWS = 512
_WIDTH = 512  # bytes of a tile's row
# Rows of a tile lie this much further apart. Without it they lie 2 KiB or 8 KiB apart in matrices of the usual sizes,
# and the lines of a column all want the same few places of the cache.
_SHIFT = 80
_FEW = 64  # runs below this many bytes are not worth their calls


def copy(out: np.ndarray, values: np.ndarray) -> None:
    """`np.copyto(out, values, casting="unsafe")`, several times as fast where the two run along different axes.

    A tile is copied (and cast) run by run first, and read column by column then: its lines stay in the first level of
    the cache until all of their elements have been used, and what is written are runs of `_ROWS` elements.
    """
    out, values = _bits(out, values)
    axes = _axes(out, values)
    if axes is None:
        np.copyto(out, values, casting="unsafe")
        return
    inner, outer = axes
    rest = [n for n in range(values.ndim) if n not in axes]
    order = (*rest, outer, inner)
    values, out = values.transpose(order), out.transpose(order)
    for place in product(*(range(n) for n in values.shape[:-2])):
        _matrix(out[place], values[place])


def _axes(out: np.ndarray, values: np.ndarray) -> tuple[int, int] | None:
    """The axis along which `values` lies in one run, and the one along which `out` does, where they differ."""
    if values.ndim < 2:
        return None
    inner = [
        n
        for n in range(values.ndim)
        if values.strides[n] == values.itemsize and values.shape[n] * values.itemsize >= _FEW
    ]
    outer = [n for n in range(values.ndim) if out.strides[n] == out.itemsize and out.shape[n] >= _FEW // 4]
    if not inner or not outer or inner[0] in outer:
        return None
    return inner[0], outer[0]


def _matrix(out: np.ndarray, values: np.ndarray) -> None:
    """One matrix whose rows are runs of `values` and whose columns are runs of `out`."""
    rows, columns = values.shape
    width = _WIDTH // out.itemsize
    padded = np.empty((min(rows, _ROWS), width + _SHIFT // out.itemsize), out.dtype)
    out, same = _bits(out, padded)
    for top, left in product(range(0, rows, _ROWS), range(0, columns, width)):
        part = values[top : top + _ROWS, left : left + width]
        high, wide = part.shape
        np.copyto(padded[:high, :wide], part, casting="unsafe")
        np.copyto(out[top : top + high, left : left + wide], same[:high, :wide])


def _bits(out: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Arrays of one dtype as bits, whatever they mean: numpy copies its own dtypes faster than those of `ml_dtypes`."""
    if out.dtype != values.dtype or out.itemsize not in (1, 2, 4, 8):
        return out, values
    bits = np.dtype(f"u{out.itemsize}")
    return out.view(bits), values.view(bits)
