"""Integer codes with a scale, and perhaps a zero point, for each group: `(code − zero) · scale`."""

from __future__ import annotations

import numpy as np

from bridge.quantized.grid import spread
from bridge.quantized.rounding import Range
from bridge.quantized.view import Array, Box, Scratch, Shape


def affine(
    codes: Array,
    values: Array,
    scratch: Scratch,
    *,
    bits: int,
    box: Box,
    block: Shape,
    zeros: Array | int,
    factors: Array,
    groups: Array | None = None,
) -> None:
    """Fill `values`, float32 of shape `(rows, columns)`, with `(codes − zeros) · factors`. The difference is exact.

    **Arguments:**

    - `codes`: bytes, of the same shape.
    - `bits`: of a code.
    - `box`: which rows and columns of the tensor they are.
    - `block`: a group's extent along rows and columns.
    - `zeros`: one for all, or a float32 for each group, shape `(rows, columns)` of the groups behind `box`.
    - `factors`: likewise.
    - `groups`: for each column which group of `factors` is its own, where they do not simply follow one another.
    """

    def of(each: Array) -> Array:
        return each if groups is None else np.take(each, groups, axis=1)

    block = block if groups is None else (1, 1)
    with np.errstate(all="ignore"):  # what a file says may be infinite
        if not isinstance(zeros, np.ndarray) or (bits < 8 and _is_small(zeros, bits)):
            # A difference that a byte has room for is made in bytes: a quarter of the memory to pass over.
            small = codes.view(np.int8)
            if isinstance(zeros, np.ndarray):
                near = scratch.take("difference", codes.shape, np.int8)
                np.copyto(near, small)
                spread(of(zeros.astype(np.uint8).view(np.int8)), box, block, np.subtract, near)
                small = near
            elif zeros:
                near = scratch.take("difference", codes.shape, np.int8)
                small = np.subtract(small, np.uint8(zeros).view(np.int8), out=near)  # modulo 256
            np.copyto(values, small)
        else:
            np.copyto(values, codes)
            spread(of(zeros), box, block, np.subtract, values)
        spread(of(factors), box, block, np.multiply, values)


def _is_small(zeros: Array, bits: int) -> bool:
    return bool(zeros.min(initial=0) >= 0 and zeros.max(initial=0) <= 1 << bits)


def range_of(factors: Array, bits: int) -> Range:
    """What is known of products of these scales with differences of codes."""
    sizes = np.abs(factors)
    least, most = float(sizes.min(initial=np.inf)), float(sizes.max(initial=0))
    return Range(most * (1 << bits), least)
