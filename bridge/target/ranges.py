"""One file written by several processes: made at its full length by one, and filled by each where its bytes belong.

By writes at an offset and no others. A page that two hosts had mapped would reach the disk as one of them saw it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from bridge._errors import SaveError
from bridge._text import quote
from bridge.target.explain import explained

Ranges = Iterable[tuple[int, np.ndarray]]
"""Flat arrays, each with the byte of the file where it starts."""


def make_file(path: Path, head: bytes, nbytes: int, *, shown: str) -> None:
    """Make a file of `nbytes` bytes that starts with `head` and is zero beyond. **Raises:** `SaveError`."""
    with explained(Path(shown), "cannot be written"):
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666)
        try:
            _write(descriptor, memoryview(head), 0)
            os.truncate(descriptor, nbytes)
        finally:
            os.close(descriptor)


def write_ranges(path: Path, ranges: Ranges, *, shown: str, wrote: Callable[[int], None] = lambda nbytes: None) -> None:
    """Fill ranges of a file that stands, and have the disk hold them.

    **Raises:** `SaveError`.
    """
    with explained(Path(shown), "cannot be written"):
        # Not for reading: a network disk would then write whole pages, and with them what others wrote.
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            for start, array in ranges:
                raw = array.view(np.uint8).data
                _write(descriptor, raw, start)
                wrote(raw.nbytes)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def verify_ranges(path: Path, ranges: Ranges, *, shown: str) -> None:
    """Read back what `write_ranges` wrote, from the disk where the system lets go of its memory of it.

    **Raises:** `SaveError` where it is not the same.
    """
    with explained(Path(shown), "cannot be read back"):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            for start, array in ranges:
                raw = array.view(np.uint8).data
                if os.pread(descriptor, raw.nbytes, start) != raw:
                    raise SaveError(
                        f"{quote(shown)} reads back otherwise than it was written, near byte {start:,}: the disk is "
                        "faulty, or does not keep what several hosts write to one file"
                    )
        finally:
            os.close(descriptor)


def check_length(path: Path, nbytes: int, *, shown: str) -> None:
    """**Raises:** `SaveError` where a file has not the length that it was made with."""
    with explained(Path(shown), "cannot be looked at"):
        found = os.stat(path).st_size
    if found != nbytes:
        raise SaveError(f"{quote(shown)} has {found:,} bytes where {nbytes:,} were written: the disk is faulty or full")


def _write(descriptor: int, data: memoryview, at: int) -> None:
    done = 0
    while done < data.nbytes:
        done += os.pwrite(descriptor, data[done:], at + done)
