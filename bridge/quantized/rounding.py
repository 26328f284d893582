"""The last step: float32 into what was asked for, by way of the dtype in which the reference computes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bridge.quantized.floats import BFLOAT16, widen
from bridge.quantized.view import Array, Scratch

FLOAT16 = np.dtype(np.float16)
_LARGEST, _NORMAL = 65504.0, 2.0**-14  # of float16; below, its steps are even
_SPLIT = np.float32((1 << 13) + 1)
_BLOCK = 1 << 18  # elements: fewer, longer calls; two threads wait for each other between calls


class Range(NamedTuple):
    """What is known of values before they are looked at.

    - `largest`: none is beyond it.
    - `least`: none is nearer to 0, but 0 itself.
    """

    largest: float = np.inf
    least: float = 0.0


_UNKNOWN = Range()


def finish(
    values: Array, out: Array, scratch: Scratch, *, through: np.dtype | None = None, within: Range = _UNKNOWN
) -> None:
    """Round `values` into `out`, once, after rounding them to `through` where that is narrower than float32.

    **Arguments:**

    - `values`: float32; may be `out` itself; is overwritten.
    - `out`: float32, bfloat16 or float16.
    - `through`: the dtype in which the reference computes.
    - `within`: what is known of them; what lies within float16 is rounded to it several times as fast.
    """
    if through is None or through == out.dtype or through.itemsize != 2:
        if out is not values:
            _round(out, values)
        return
    # Scratch beside the values is bounded; rounding what may lie below float16's normal numbers takes twice as much.
    block = _BLOCK if within.least >= _NORMAL else _BLOCK // 2
    step = max(block // max(values.shape[-1], 1), 1)
    for start in range(0, len(values), step):
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

    numpy's own cast takes ten times as long, and has to where values may be beyond float16 or NaN. Where none lies
    below its normal numbers, `t − (t − v)` with `t = (2¹³ + 1) · v` leaves the bits that float16 has (Veltkamp's
    splitting; a tie goes to even, since `t` is rounded so). Else a sum with 1.5 · 2^(e + 13) does, e the exponent of
    the value.
    """
    if not within.largest <= _LARGEST or not values.flags.c_contiguous:
        narrow = scratch.take("narrow", values.shape, FLOAT16)
        _round(narrow, values)
        np.copyto(values, narrow)
        return
    if within.least >= _NORMAL:
        larger = scratch.take("raised", values.shape, np.float32)
        np.multiply(values, _SPLIT, out=larger)
        np.subtract(larger, values, out=values)
        np.subtract(larger, values, out=values)
        return
    bits, raised = values.view(np.uint32), scratch.take("raised", values.shape, np.uint32)
    np.bitwise_and(bits, np.uint32(0x7F800000), out=raised)
    np.maximum(raised, np.uint32(0x38800000), out=raised)  # below 2⁻¹⁴ float16 has even steps
    np.add(raised, np.uint32(13 << 23 | 0x400000), out=raised)
    sign = scratch.take("sign", values.shape, np.uint32)
    np.bitwise_and(bits, np.uint32(0x80000000), out=sign)
    np.add(values, raised.view(np.float32), out=values)
    np.subtract(values, raised.view(np.float32), out=values)
    np.bitwise_or(bits, sign, out=bits)  # what was negative and became 0
