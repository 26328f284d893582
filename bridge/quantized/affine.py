"""Integer codes with a scale, and perhaps a zero point, for each group: `(code − zero) · scale`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bridge.quantized.grid import spread
from bridge.quantized.rounding import Range, finish
from bridge.quantized.view import Array, Box, Scratch, Shape

TILE = (512, 512)
"""A chunk of columns that are stored: rows enough for whole lines of the cache, and whole groups. Of half the size two
threads take twice as long, for they wait for each other between numpy's calls.
"""
_FETCHED = 1 << 17  # elements whose scales and zero points are fetched one by one


class Scales(NamedTuple):
    """What belongs to the groups of a box.

    - `bits`: of a code.
    - `box`: which rows and columns of the tensor it is.
    - `block`: a group's extent along rows and columns.
    - `zeros`: one for all, or a float32 for each group, shape `(rows, columns)` of the groups behind `box`.
    - `factors`: likewise.
    - `groups`: for each column which group of `factors` is its own, where they do not simply follow one another. Each
        is there: callers see to it.
    """

    bits: int
    box: Box
    block: Shape
    zeros: Array | int
    factors: Array
    groups: Array | None = None

    @property
    def within(self) -> Range:
        """What is known of the products."""
        sizes = np.abs(self.factors)
        least, most = float(sizes.min(initial=np.inf)), float(sizes.max(initial=0))
        return Range(most * (1 << self.bits), least)

    def of(self, rows: slice) -> Scales:
        """Those of some rows, where each row has its own."""
        every, columns = self.box[-2:]
        zeros = self.zeros[rows] if isinstance(self.zeros, np.ndarray) else self.zeros
        return self._replace(box=(every[rows], columns), zeros=zeros, factors=self.factors[rows])


def affine(codes: Array, out: Array, scratch: Scratch, by: Scales, *, through: np.dtype | None = None) -> None:
    """Fill `out` with `(codes − zeros) · factors`. The difference is exact; the product is rounded to float32, to
    `through`, and to the dtype of `out`.

    **Arguments:**

    - `codes`: bytes, shape `(rows, columns)`.
    - `out`: of that shape; float32, bfloat16 or float16; any strides.
    - `through`: the dtype in which the reference computes, if that is narrower than float32.
    """
    if by.groups is None:
        _compute(codes, out, scratch, by, through)
        return
    # What belongs to each column is as large as the values: some rows at a time.
    step = max(_FETCHED // max(codes.shape[1], 1), 1)
    for start in range(0, len(codes), step):
        rows = slice(start, start + step)
        _compute(codes[rows], out[rows], scratch, by.of(rows), through)


def _compute(codes: Array, out: Array, scratch: Scratch, by: Scales, through: np.dtype | None) -> None:
    """Each element in float32."""

    def of(each: Array) -> Array:
        return each if by.groups is None else np.take(each, by.groups, axis=1)

    values = out if out.dtype == np.float32 and out.flags.c_contiguous else scratch.take("v", out.shape, np.float32)
    box, zeros, block = by.box, by.zeros, by.block if by.groups is None else (1, 1)
    with np.errstate(all="ignore"):
        if not isinstance(zeros, np.ndarray) or (by.bits < 8 and _is_small(zeros, by.bits)):
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
        spread(of(by.factors), box, block, np.multiply, values)
    finish(values, out, scratch, through=through, within=by.within)


def _is_small(zeros: Array, bits: int) -> bool:
    return bool(zeros.min(initial=0) >= 0 and zeros.max(initial=0) <= 1 << bits)
