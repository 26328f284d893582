"""The last step: float32 into what was asked for, by way of the dtype in which the reference computes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bridge.quantized.floats import BFLOAT16, widen
from bridge.quantized.view import Array, Scratch

FLOAT16 = np.dtype(np.float16)
_LARGEST = 65504.0  # of float16
_BLOCK = 1 << 17  # elements


class Range(NamedTuple):
    """What is known of values before they are looked at.

    - `largest`: none is beyond it.
    - `positive`: each is either a product that float16 does not round to 0, or +0.
    """

    largest: float = np.inf
    positive: bool = False


_UNKNOWN = Range()


def finish(
    values: Array, out: Array, scratch: Scratch, *, through: np.dtype | None = None, within: Range = _UNKNOWN
) -> None:
    """Round `values` into `out`, once, after rounding them to `through` where that is narrower than float32.

    **Arguments:**

    - `values`: float32; may be `out` itself; is overwritten.
    - `out`: float32, bfloat16 or float16.
    - `through`: the dtype in which the reference computes.
    - `within`: what is known of them; what lies within float16 is rounded to it four times as fast.
    """
    if through is None or through == out.dtype or through.itemsize != 2:
        if out is not values:
            _round(out, values)
        return
    step = max(_BLOCK // max(values.shape[-1], 1), 1)
    for start in range(0, len(values), step):  # what rounding needs beside the values stays in the cache
        part, rows = values[start : start + step], out[start : start + step]
        if through == FLOAT16:
            round_to_float16(part, scratch, within)
        else:
            narrow = scratch.take("narrow", part.shape, BFLOAT16)
            _round(narrow, part)
            if part.flags.c_contiguous:
                widen(narrow.view(np.uint16), part, scratch)
            else:
                np.copyto(part, narrow)
        if out is not values:
            _round(rows, part)


def _round(out: Array, values: Array) -> None:
    with np.errstate(over="ignore", invalid="ignore"):  # what is too large is infinite, as everywhere
        np.copyto(out, values, casting="unsafe")


def round_to_float16(values: Array, scratch: Scratch, within: Range) -> None:
    """Round float32 in place to what float16 can hold, to nearest even.

    A sum with 1.5 · 2^(e + 13), e the exponent of the value, leaves the bits that float16 has. numpy's own cast takes
    four times as long, and has to where values may be beyond float16 or NaN.
    """
    if not within.largest <= _LARGEST or not values.flags.c_contiguous:
        narrow = scratch.take("narrow", values.shape, FLOAT16)
        _round(narrow, values)
        np.copyto(values, narrow)
        return
    bits, raised = values.view(np.uint32), scratch.take("raised", values.shape, np.uint32)
    np.bitwise_and(bits, np.uint32(0x7F800000), out=raised)
    np.maximum(raised, np.uint32(0x38800000), out=raised)  # below 2⁻¹⁴ float16 has even steps
    np.add(raised, np.uint32(13 << 23 | 0x400000), out=raised)
    if within.positive:
        np.add(values, raised.view(np.float32), out=values)
        np.subtract(values, raised.view(np.float32), out=values)
        return
    sign = scratch.take("sign", values.shape, np.uint32)
    np.bitwise_and(bits, np.uint32(0x80000000), out=sign)
    np.add(values, raised.view(np.float32), out=values)
    np.subtract(values, raised.view(np.float32), out=values)
    np.bitwise_or(bits, sign, out=bits)  # what was negative and became 0
