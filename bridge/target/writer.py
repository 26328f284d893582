"""Files straight from memory: whole ones, and parts of one that several processes fill, each where its bytes belong.

By writes at an offset and no others. A page that two hosts had mapped would reach the disk as one of them saw it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from bridge._errors import SaveError
from bridge._text import quote
from bridge.target.explain import explained
from bridge.target.interrupts import Descriptor

Memory = np.ndarray | memoryview
"""A C-contiguous array, or bytes."""
Ranges = Iterable[tuple[int, Memory]]
"""What is written, each with the byte of the file where it starts; asked for one at a time, so that one is held."""
Wrote = Callable[[int], None]

_NEW = os.O_CREAT | os.O_EXCL | os.O_WRONLY
_COMPARED = 4 << 20
_PIECE = 64 << 20  # Linux writes at most 2 GiB at a call; smaller pieces let progress be seen
_TOGETHER = 256 << 10
"""Bytes of short pieces that are copied side by side, and written by one call."""


def write_file(
    path: Path, head: bytes, arrays: Iterable[Memory], *, shown: str, wrote: Wrote = lambda nbytes: None
) -> int:
    """Write `head`, then every array's bytes.

    **Arguments:**

    - `path`: where, a name that does not exist.
    - `head`: the file's first bytes, a header as `bridge.format.encode` makes it.
    - `arrays`: what lies behind it, one after the other; asked for as `Ranges` are.
    - `shown`: the file's final name, for messages.
    - `wrote`: called with every number of bytes written.

    **Returns:** the file's length in bytes. **Raises:** `SaveError`.
    """
    with explained(Path(shown), "cannot be written"), Descriptor(path, _NEW) as descriptor:
        _write(descriptor, memoryview(head), 0)
        nbytes = max(len(head), _write_all(descriptor, _in_order(len(head), arrays), wrote))
        _check_length(os.fstat(descriptor), nbytes, shown)
    return nbytes


def make_file(path: Path, head: bytes, nbytes: int, *, shown: str) -> None:
    """Make a file of `nbytes` bytes that starts with `head` and is zero beyond. **Raises:** `SaveError`."""
    with explained(Path(shown), "cannot be written"), Descriptor(path, _NEW) as descriptor:
        _write(descriptor, memoryview(head), 0)
        os.truncate(descriptor, nbytes)


def write_ranges(path: Path, ranges: Ranges, *, shown: str, wrote: Wrote = lambda nbytes: None) -> None:
    """Fill ranges of a file that stands, and have the disk hold them.

    **Raises:** `SaveError`.
    """
    # Not for reading: a network disk would then write whole pages, and with them what others wrote.
    with explained(Path(shown), "cannot be written"), Descriptor(path, os.O_WRONLY) as descriptor:
        _write_all(descriptor, ranges, wrote)
        os.fsync(descriptor)


def check_length(path: Path, nbytes: int, *, shown: str) -> None:
    """**Raises:** `SaveError` where a file has not the length that was written."""
    with explained(Path(shown), "cannot be looked at"):
        _check_length(os.stat(path), nbytes, shown)


def _check_length(status: os.stat_result, nbytes: int, shown: str) -> None:
    if status.st_size != nbytes:
        raise SaveError(
            quote(shown),
            f"has {status.st_size:,} bytes where {nbytes:,} were written: the disk is faulty or full",
            "Name a place on another disk",
        )


def verify_file(path: Path, head: bytes, arrays: Iterable[Memory], *, shown: str) -> None:
    """Read back what `write_file` wrote, from the disk where the system lets go of its memory of it.

    **Raises:** `SaveError` where it is not the same.
    """
    _verify(path, _in_order(0, [memoryview(head)], arrays), shown, "the disk is faulty")


def verify_ranges(path: Path, ranges: Ranges, *, shown: str) -> None:
    """Read back what `write_ranges` wrote, from the disk where the system lets go of its memory of it.

    **Raises:** `SaveError` where it is not the same.
    """
    _verify(path, ranges, shown, "the disk is faulty, or does not keep what several hosts write to one file")


def holds(path: Path, ranges: Ranges, *, shown: str) -> bool:
    """Whether a file that stands has these bytes. **Raises:** `SaveError` where it cannot be read."""
    with explained(Path(shown), "cannot be read back"), Descriptor(path, os.O_RDONLY) as descriptor:
        return all(os.pread(descriptor, part.nbytes, at) == part for at, part in _pieces(ranges, _COMPARED))


def _verify(path: Path, ranges: Ranges, shown: str, cause: str) -> None:
    with explained(Path(shown), "cannot be read back"), Descriptor(path, os.O_RDONLY) as descriptor:
        os.fsync(descriptor)
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        for at, part in _pieces(ranges, _COMPARED):
            if os.pread(descriptor, part.nbytes, at) != part:
                raise SaveError(
                    quote(shown),
                    f"does not read back as it was written, near byte {at:,}: {cause}",
                    "Name a place on another disk",
                )


def _in_order(start: int, *parts: Iterable[Memory]) -> Iterator[tuple[int, Memory]]:
    """Memory that lies one after the other in a file, the first at byte `start`."""
    for arrays in parts:
        for array in arrays:
            yield start, array
            start += array.nbytes


def _pieces(ranges: Ranges, nbytes: int) -> Iterator[tuple[int, memoryview]]:
    """The bytes of all ranges, at most so many at a time."""
    for start, array in ranges:
        if isinstance(array, memoryview):
            raw = array
        else:
            raw = array.reshape(-1).view(np.uint8).data if array.size else memoryview(b"")
        if raw.nbytes <= nbytes:
            yield start, raw
            continue
        for at in range(0, raw.nbytes, nbytes):
            yield start + at, raw[at : at + nbytes]


def _together(pieces: Iterable[tuple[int, memoryview]]) -> Iterator[tuple[int, memoryview]]:
    """Pieces, short ones that follow one another as one. None is looked at when the next has been asked for."""
    first, short = 0, bytearray()
    for at, piece in pieces:
        if short and (at != first + len(short) or len(short) + piece.nbytes > _TOGETHER):
            yield first, memoryview(short)
            short = bytearray()
        if piece.nbytes > _TOGETHER:
            yield at, piece
        else:
            first = first if short else at
            short += piece
    if short:
        yield first, memoryview(short)


def _write_all(descriptor: int, ranges: Ranges, wrote: Wrote) -> int:
    """Write all ranges; returns where the last byte of them ends."""
    stop = 0
    for at, piece in _together(_pieces(ranges, _PIECE)):
        _write(descriptor, piece, at)
        wrote(piece.nbytes)
        stop = max(stop, at + piece.nbytes)
    return stop


def _write(descriptor: int, data: memoryview, at: int) -> None:
    done = 0
    while done < data.nbytes:
        done += os.pwrite(descriptor, data[done:], at + done)
