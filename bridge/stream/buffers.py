"""Memory for the final arrays, made so that JAX takes it over without a copy and touching it first is cheap."""

from __future__ import annotations

import mmap
from math import prod

import numpy as np

_HUGE = 2 << 20
_ALIGNED = 64
_SPARE = 256 << 10


def empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An uninitialised C-contiguous array, aligned to 64 bytes; from 2 MiB up on huge pages where the system has them.

    The first touch of a 4 KiB page costs more than copying it, so large arrays ask for pages of 2 MiB.
    """
    nbytes = prod(shape) * dtype.itemsize
    if nbytes >= _HUGE:
        block = _huge(nbytes)
    else:
        # The first element lies on the next multiple of the alignment: the allocator alone promises 16 bytes.
        block = np.empty(nbytes + _ALIGNED, np.uint8)
        block = block[-block.ctypes.data % _ALIGNED :]
    return block[:nbytes].view(dtype).reshape(shape)


def taken_nbytes(nbytes: int) -> int:
    """The memory that an array of `nbytes` takes once it is written."""
    return max(nbytes, _on_large_pages(nbytes))


def _on_large_pages(nbytes: int) -> int:
    """How much of an array lies on pages of 2 MiB."""
    whole, rest = nbytes // _HUGE * _HUGE, nbytes % _HUGE
    # A rest on a page of its own takes all of it, for as long as the array lives: only where that is little.
    return whole + _HUGE if rest and _HUGE - rest <= min(nbytes // 64, _SPARE) else whole


def _huge(nbytes: int) -> np.ndarray:
    """At least `nbytes`, the first on a page of 2 MiB."""
    large = _on_large_pages(nbytes)
    block = mmap.mmap(-1, max(nbytes, large) + _HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    flat = np.frombuffer(block, np.uint8)
    start = -flat.ctypes.data % _HUGE
    if hasattr(mmap, "MADV_HUGEPAGE"):  # Linux only; elsewhere the pages are what they are
        block.madvise(mmap.MADV_HUGEPAGE, start, large)
    return flat[start:]


def as_bytes(array: np.ndarray) -> memoryview:
    """The memory of a C-contiguous array as writable bytes."""
    return array.reshape(-1).view(np.uint8).data
