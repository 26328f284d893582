"""Copies between arrays that run in different orders: matrices transposed in tiles that stay in the cache."""

from __future__ import annotations

from itertools import product

import numpy as np

_TILE = 256
_UNIT = np.dtype(np.complex128)  # 16 bytes: the widest unit that numpy moves in one step
_FEW = 64  # tiles below this many bytes a side are not worth their calls


def copy(out: np.ndarray, values: np.ndarray) -> None:
    """`np.copyto(out, values, casting="unsafe")`, several times as fast where the two run along different axes.

    A tile is turned in two steps: units of 16 bytes change places first, then the elements within them. Both steps
    touch whole cache lines, which an element at a time does not.
    """
    if out.dtype == values.dtype and out.dtype.itemsize in (1, 2, 4, 8):
        # Bits are moved, whatever they mean.
        bits = np.dtype(f"u{out.dtype.itemsize}")
        out, values = out.view(bits), values.view(bits)
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
    itemsize = values.dtype.itemsize
    if values.ndim < 2 or itemsize not in (1, 2, 4, 8):
        return None
    inner = [n for n in range(values.ndim) if values.strides[n] == itemsize and values.shape[n] * itemsize >= _FEW]
    outer = [n for n in range(values.ndim) if out.strides[n] == out.dtype.itemsize and out.shape[n] >= _FEW // 4]
    if not inner or not outer or inner[0] in outer:
        return None
    return inner[0], outer[0]


def _matrix(out: np.ndarray, values: np.ndarray) -> None:
    """One matrix whose rows are runs of `values` and whose columns are runs of `out`."""
    rows, columns = values.shape
    lanes = _UNIT.itemsize // values.dtype.itemsize
    whole = columns - columns % lanes
    if whole < columns:
        np.copyto(out[:, whole:], values[:, whole:], casting="unsafe")
    step = max(_TILE // lanes, 1) * lanes
    turned = np.empty((step // lanes, _TILE), _UNIT)
    row, column = out.strides
    for top, left in product(range(0, rows, _TILE), range(0, whole, step)):
        part = values[top : top + _TILE, left : min(left + step, whole)]
        height, units = part.shape[0], part.shape[1] // lanes
        tile = turned[:units, :height]
        np.copyto(tile, part.view(_UNIT).T)
        # (units, lanes, height): column by column of the result, each a run.
        into = np.lib.stride_tricks.as_strided(out[top:, left:], (units, lanes, height), (column * lanes, column, row))
        elements = np.lib.stride_tricks.as_strided(
            tile.view(values.dtype), (units, lanes, height), (tile.strides[0], values.dtype.itemsize, _UNIT.itemsize)
        )
        if out.dtype != values.dtype:
            # Casts are fast only along runs.
            elements = np.ascontiguousarray(elements)
        np.copyto(into, elements, casting="unsafe")
