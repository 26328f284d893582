"""One file, straight from memory, and its length checked."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from bridge._errors import SaveError
from bridge._text import quote
from bridge.target.explain import explained

_COMPARED = 4 << 20
_PIECE = 64 << 20  # Linux writes at most 2 GiB at a call; smaller pieces let progress be seen


def write_file(
    path: Path,
    head: bytes,
    arrays: Iterable[np.ndarray],
    *,
    shown: str,
    wrote: Callable[[int], None] = lambda nbytes: None,
) -> int:
    """Write `head`, then every array's bytes.

    **Arguments:**

    - `path`: where, a name that does not exist.
    - `head`: the file's first bytes, a header as `bridge.format.encode` makes it.
    - `arrays`: C-contiguous; asked for one at a time, so that one is held.
    - `shown`: the file's final name, for messages.
    - `wrote`: called with every number of bytes written.

    **Returns:** the file's length in bytes. **Raises:** `SaveError`.
    """
    with explained(Path(shown), "cannot be written"):
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666)
        try:
            length = _write(descriptor, memoryview(head))
            for array in arrays:
                raw = _bytes(array)
                for start in range(0, raw.nbytes, _PIECE):
                    nbytes = _write(descriptor, raw[start : start + _PIECE])
                    length += nbytes
                    wrote(nbytes)
            found = os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)
    if found != length:
        raise SaveError(
            f"{quote(shown)} has {found:,} bytes where {length:,} were written: the disk is faulty or full, "
            "name a place on another"
        )
    return length


def verify_file(path: Path, head: bytes, arrays: Iterable[np.ndarray], *, shown: str) -> None:
    """Read back what `write_file` wrote, from the disk where the system lets go of its memory of it.

    **Raises:** `SaveError` where it is not the same.
    """
    with explained(Path(shown), "cannot be read back"):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            at = _compare(descriptor, memoryview(head), 0, shown)
            for array in arrays:
                at = _compare(descriptor, _bytes(array), at, shown)
        finally:
            os.close(descriptor)


def _compare(descriptor: int, expected: memoryview, at: int, shown: str) -> int:
    for start in range(0, expected.nbytes, _COMPARED):
        part = expected[start : start + _COMPARED]
        if os.pread(descriptor, part.nbytes, at + start) != part:
            raise SaveError(
                f"{quote(shown)} reads back otherwise than it was written, near byte {at + start:,}: "
                "the disk is faulty, name a place on another"
            )
    return at + expected.nbytes


def _bytes(array: np.ndarray) -> memoryview:
    return array.reshape(-1).view(np.uint8).data if array.size else memoryview(b"")


def _write(descriptor: int, data: memoryview) -> int:
    done = 0
    while done < data.nbytes:
        done += os.write(descriptor, data[done:])
    return done
