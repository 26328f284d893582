"""Integer codes with a scale, and perhaps a zero point, for each group: `(code − zero) · scale`."""

from __future__ import annotations

import numpy as np

from bridge.quantized.grid import spread
from bridge.quantized.rounding import Range
from bridge.quantized.view import Array, Box, Shape


def affine(
    codes: Array,
    values: Array,
    *,
    box: Box,
    block: Shape,
    zeros: Array | float,
    factors: Array,
    groups: Array | None = None,
) -> None:
    """Fill `values`, float32 of shape `(rows, columns)`, with `(codes − zeros) · factors`. The difference is exact.

    **Arguments:**

    - `codes`: integers, of the same shape.
    - `box`: which rows and columns of the tensor they are.
    - `block`: a group's extent along rows and columns.
    - `zeros`: one for all, or a float32 for each group, shape `(rows, columns)` of the groups behind `box`.
    - `factors`: likewise.
    - `groups`: for each column which group of `factors` is its own, where they do not simply follow one another.
    """
    np.copyto(values, codes)
    with np.errstate(all="ignore"):  # what a file says may be infinite
        if not isinstance(zeros, np.ndarray):
            if zeros:
                np.subtract(values, np.float32(zeros), out=values)
        elif groups is None:
            spread(zeros, box, block, np.subtract, values)
        else:
            np.subtract(values, np.take(zeros, groups, axis=1), out=values)
        if groups is None:
            spread(factors, box, block, np.multiply, values)
        else:
            np.multiply(values, np.take(factors, groups, axis=1), out=values)


def range_of(factors: Array, bits: int) -> Range:
    """What is known of products of these scales with differences of codes."""
    low, high = float(factors.min(initial=np.inf)), float(factors.max(initial=0))
    return Range(max(abs(low), abs(high)) * (1 << bits) if factors.size else 0.0, positive=low >= 2.0**-24)
