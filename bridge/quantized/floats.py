"""Small floats as float32: tables of all their codes, and the ways that need no table."""

from __future__ import annotations

from functools import lru_cache

import ml_dtypes
import numpy as np

from bridge.quantized.view import Array, Scratch

FLOAT8 = np.dtype(ml_dtypes.float8_e4m3fn)
E8M0 = np.dtype(ml_dtypes.float8_e8m0fnu)
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
_E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


@lru_cache(maxsize=8)
def table(dtype: np.dtype) -> Array:
    """The float32 of each of the 256 codes of a dtype of one byte. U8 is read as E8M0 without NaN: 255 is infinite."""
    codes = np.arange(256, dtype=np.uint8)
    if dtype in (E8M0, np.dtype(np.uint8)):
        values = np.ldexp(np.float32(1), np.minimum(codes, 254).astype(np.int32) - 127).astype(np.float32)
        values[255] = np.nan if dtype == E8M0 else np.inf
    else:
        values = codes.view(dtype).astype(np.float32)
    values.flags.writeable = False
    return values


@lru_cache(maxsize=2)
def fp4_codes(*, negative_zero: bool) -> Array:
    """The float32 of the 16 codes of E2M1; some tools read code 8 as 0, not as −0."""
    values = np.array([*_E2M1, *(-v for v in _E2M1)], np.float32)
    if not negative_zero:
        values[8] = 0
    values.flags.writeable = False
    return values


@lru_cache(maxsize=64)
def _pairs(low: bytes, high_first: bool) -> Array:
    values = np.frombuffer(low, np.float32)
    byte = np.arange(256)
    both = np.empty((256, 2), np.float32)
    both[:, 1 if high_first else 0] = values[byte & 15]
    both[:, 0 if high_first else 1] = values[byte >> 4]
    return both.view(np.uint64).reshape(256)


def pairs(values: Array, *, high_first: bool = False) -> Array:
    """For each byte of two codes of 4 bits both values, as 8 bytes in a row: one look-up an index gives two.

    **Arguments:**

    - `values`: float32 `(16,)`, of each code.
    - `high_first`: whether the upper half of a byte is the earlier element.
    """
    return _pairs(np.ascontiguousarray(values, np.float32).tobytes(), high_first)


@lru_cache(maxsize=3)
def scaled_pairs(largest: str) -> Array:
    """For each exponent (the upper byte) and each byte of two E2M1 codes both products, as two bfloat16. All are exact.

    `largest`: what exponent 255 is: `"inf"`, `"nan"`, or `"power"`, 2¹²⁸, which times 0.5 is no more than bfloat16 has.
    """
    both = pairs(fp4_codes(negative_zero=True)).view(np.float32).reshape(1, 256, 2)
    with np.errstate(over="ignore", invalid="ignore"):
        if largest == "power":
            values = np.ldexp(both, np.arange(-127, 129, dtype=np.int32)[:, None, None]).astype(BFLOAT16)
        else:
            scales = table(np.dtype(np.uint8) if largest == "inf" else E8M0)
            values = (both * scales[:, None, None]).astype(BFLOAT16)
    return np.ascontiguousarray(values).view(np.uint32).reshape(65536)


def scales(stored: Array) -> Array:
    """Stored scales as float32; one byte without a float's dtype is an exponent."""
    if stored.dtype.itemsize == 1:
        return np.take(table(stored.dtype), stored.view(np.uint8), mode="wrap")
    return stored.astype(np.float32)


def widen(codes: Array, out: Array, scratch: Scratch) -> None:
    """bfloat16 as uint16 into float32. Faster than a cast."""
    wide = out.view(np.uint32)
    np.copyto(wide, codes)
    np.left_shift(wide, 16, out=wide)


def has_nan(codes: Array, scratch: Scratch) -> bool:
    """Whether a code of E4M3 is NaN."""
    low = scratch.take("nan", codes.shape, np.uint8)
    return bool(np.bitwise_and(codes, 127, out=low).max() == 127)


def shrunk(codes: Array, out: Array) -> None:
    """E4M3 codes (uint8) as float32, times 2⁻¹²⁰: the bits are moved to where float32 has them. No code is NaN."""
    wide = out.view(np.int32)
    np.copyto(wide, codes.view(np.int8))  # the sign runs up to the top
    np.left_shift(wide, 20, out=wide)
    np.bitwise_and(wide, np.int32(0x87F00000 - (1 << 32)), out=wide)


def look_up(values: Array, codes: Array, out: Array) -> None:
    """`values[codes]` into `out`, which is C-contiguous; every code is an index."""
    np.take(values, codes, out=out, mode="wrap")
