"""Memory for the final arrays, made so that JAX takes it over without a copy and touching it first is cheap."""

from __future__ import annotations

import mmap
from math import prod

import numpy as np

_HUGE = 2 << 20
_ALIGNED = 64


def empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An uninitialised C-contiguous array, aligned to 64 bytes; from 2 MiB up on huge pages where the system has them.

    The first touch of a 4 KiB page costs more than copying it, so large arrays ask for pages of 2 MiB.
    """
    nbytes = prod(shape) * dtype.itemsize
    # The first element lies on the next multiple of the alignment: the allocator alone promises 16 bytes.
    block = _huge(nbytes) if nbytes >= _HUGE else np.empty(nbytes + _ALIGNED, np.uint8)
    alignment = _HUGE if nbytes >= _HUGE else _ALIGNED
    start = -block.ctypes.data % alignment
    return block[start : start + nbytes].view(dtype).reshape(shape)


def _huge(nbytes: int) -> np.ndarray:
    block = mmap.mmap(-1, nbytes + _HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):  # Linux only; elsewhere the pages are what they are
        block.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(block, np.uint8)


def as_bytes(array: np.ndarray) -> memoryview:
    """The memory of a C-contiguous array as writable bytes."""
    return array.reshape(-1).view(np.uint8).data
