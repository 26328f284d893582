"""Memory to read into: how much at a time, and the final arrays, which JAX takes over without a copy."""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator
from math import prod
from typing import Protocol, TypeVar

import numpy as np

from bridge.mapping.block import Block

CHUNK = 4 << 20
"""Bytes of one read into scratch, of which each thread has a chunk, or over a network."""
CONTIGUOUS = 8 << 20
"""Bytes of one read from a local file straight into its place. Threads that come back from the kernel cost each other a
tenth of a millisecond: 8 MiB are up to a tenth faster than 4, on some machines no faster, and more gain nothing, for at
the end one thread waits longer.
"""
THREADS = 2
"""Two give 1.3 to 1.5 times the speed of one where the bytes are in memory already; more give nothing on two cores."""
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


def readers_nbytes(parallel: int | None) -> int:
    """What readers turn and cast in; where `parallel` of them read over a network, also what a store hands over."""
    return THREADS * CHUNK if parallel is None else 2 * parallel * CHUNK


def room(max_nbytes: int, parallel: int | None) -> int:
    """What is left of `max_nbytes` for leaves, beside what readers need."""
    return max(max_nbytes - readers_nbytes(parallel), max_nbytes // 2)


def part_nbytes(blocks: Iterable[Block], limit: int) -> int:
    """How large a part of one leaf may be, at most `limit`: of a sum all terms are in memory at once."""
    terms = max((len(block.terms) for block in blocks), default=1)
    return limit if terms == 1 else min(limit, CHUNK // (terms + 2))


class _Sized(Protocol):
    @property
    def nbytes(self) -> int: ...


_T = TypeVar("_T", bound=_Sized)


def batches(found: Iterable[_T], limit: int) -> Iterator[list[_T]]:
    """As many at a time as have room in `limit` bytes, but one at least."""
    batch: list[_T] = []
    nbytes = 0
    for one in found:
        if batch and nbytes + one.nbytes > limit:
            yield batch
            batch, nbytes = [], 0
        batch.append(one)
        nbytes += one.nbytes
    if batch:
        yield batch
