"""The last step: float32 into what was asked for, by way of the dtype in which the reference computes."""

from __future__ import annotations

import numpy as np

from bridge.quantized.floats import BFLOAT16, widen
from bridge.quantized.view import Array, Scratch

FLOAT16 = np.dtype(np.float16)
_LARGEST = 65504.0  # of float16


def finish(
    values: Array, out: Array, scratch: Scratch, *, through: np.dtype | None = None, bound: float = np.inf
) -> None:
    """Round `values` into `out`, once, after rounding them to `through` where that is narrower than float32.

    **Arguments:**

    - `values`: float32; may be `out` itself; is overwritten.
    - `out`: float32, bfloat16 or float16.
    - `through`: the dtype in which the reference computes.
    - `bound`: no value is larger than this; what is known to lie within float16 is rounded to it four times as fast.
    """
    if through is not None and through != out.dtype and through.itemsize == 2:
        if through == FLOAT16:
            round_to_float16(values, scratch, bound=bound)
        else:
            narrow = scratch.take("narrow", values.shape, BFLOAT16)
            _round(narrow, values)
            if values.flags.c_contiguous:
                widen(narrow.view(np.uint16), values, scratch)
            else:
                np.copyto(values, narrow)
    if out is not values:
        _round(out, values)


def _round(out: Array, values: Array) -> None:
    with np.errstate(over="ignore", invalid="ignore"):  # what is too large is infinite, as everywhere
        np.copyto(out, values, casting="unsafe")


def round_to_float16(values: Array, scratch: Scratch, *, bound: float) -> None:
    """Round float32 in place to what float16 can hold, to nearest even.

    A sum with 1.5 · 2^(e + 13), e the exponent of the value, leaves the bits that float16 has. numpy's own cast takes
    four times as long, and has to where values may be beyond float16 or NaN.
    """
    if not bound <= _LARGEST or not values.flags.c_contiguous:
        narrow = scratch.take("narrow", values.shape, FLOAT16)
        _round(narrow, values)
        np.copyto(values, narrow)
        return
    bits = values.view(np.uint32)
    raised, sign = scratch.take("raised", values.shape, np.uint32), scratch.take("sign", values.shape, np.uint32)
    np.bitwise_and(bits, np.uint32(0x7F800000), out=raised)
    np.maximum(raised, np.uint32(0x38800000), out=raised)  # below 2⁻¹⁴ float16 has even steps
    np.add(raised, np.uint32(13 << 23 | 0x400000), out=raised)
    np.bitwise_and(bits, np.uint32(0x80000000), out=sign)
    np.add(values, raised.view(np.float32), out=values)
    np.subtract(values, raised.view(np.float32), out=values)
    np.bitwise_or(bits, sign, out=bits)  # a negative value may have become 0
