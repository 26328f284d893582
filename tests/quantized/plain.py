"""Packing and unpacking as one would explain it: bit by bit, through arrays of bits. For references only."""

from __future__ import annotations

import ml_dtypes
import numpy as np

BF16, E4M3, E8M0 = ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e8m0fnu
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)


def bits_of(codes: np.ndarray, bits: int) -> np.ndarray:
    """`(…, n)` codes to `(…, n · bits)` bits, the lowest first."""
    return ((codes[..., None].astype(np.uint32) >> np.arange(bits, dtype=np.uint32)) & 1).reshape(*codes.shape[:-1], -1)


def pack(codes: np.ndarray, bits: int, dense: bool = True) -> np.ndarray:
    """Codes along the last axis into words of 32 bits, as uint32."""
    if not dense:
        each = 32 // bits
        codes = np.concatenate([codes, np.zeros((*codes.shape[:-1], -codes.shape[-1] % each), codes.dtype)], -1)
        words = codes.reshape(*codes.shape[:-1], -1, each)
        flat = bits_of(words, bits)
        flat = np.concatenate([flat, np.zeros((*flat.shape[:-1], 32 - each * bits), flat.dtype)], -1)
    else:
        flat = bits_of(codes, bits)
        flat = np.concatenate([flat, np.zeros((*flat.shape[:-1], -flat.shape[-1] % 32), flat.dtype)], -1)
        flat = flat.reshape(*flat.shape[:-1], -1, 32)
    return (flat.astype(np.uint64) << np.arange(32, dtype=np.uint64)).sum(-1).astype(np.uint32)


def unpack(words: np.ndarray, bits: int, count: int, dense: bool = True) -> np.ndarray:
    """The way back, to int64."""
    flat = bits_of(words.view(np.uint32), 32).reshape(*words.shape, 32)
    if not dense:
        flat = flat[..., : 32 // bits * bits]
    flat = flat.reshape(*words.shape[:-1], -1)
    flat = flat[..., : flat.shape[-1] // bits * bits].reshape(*words.shape[:-1], -1, bits)
    return (flat.astype(np.int64) << np.arange(bits)).sum(-1)[..., :count]


def halves(stored: np.ndarray, high_first: bool = False) -> np.ndarray:
    """Two codes of each byte along the last axis."""
    stored = stored.view(np.uint8)
    low, high = stored & 15, stored >> 4
    return np.stack([high, low] if high_first else [low, high], -1).reshape(*stored.shape[:-1], -1)


def expand(values: np.ndarray, shape: tuple[int, ...], block: tuple[int, ...]) -> np.ndarray:
    """One value a block to one an element."""
    for axis, size in enumerate(block):
        values = np.repeat(values, size, axis=axis)
    return values[tuple(slice(0, n) for n in shape)]


def blocks(shape: tuple[int, ...], block: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(-(-n // b) for n, b in zip(shape, block, strict=True))


def words(rng: np.random.Generator, shape: tuple[int, ...], dtype: type = np.int32) -> np.ndarray:
    return rng.integers(0, 2**32, shape, np.uint64).astype(np.uint32).view(dtype)


def wild(rng: np.random.Generator, shape: tuple[int, ...], dtype: type | np.dtype) -> np.ndarray:
    """Scales of every size that a dtype has, subnormal ones too, with signs."""
    spread = {np.dtype(np.float16): (-24, 12), np.dtype(BF16): (-130, 120), np.dtype(np.float32): (-140, 120)}
    low, high = spread[np.dtype(dtype)]
    # Most are of a usual size, some are anything.
    exponent = np.where(rng.random(shape) < 0.8, rng.uniform(-9, -2, shape), rng.uniform(low, high, shape))
    with np.errstate(all="ignore"):
        return (np.exp2(exponent) * rng.choice([1, -1], shape)).astype(np.float32).astype(dtype)
