"""A new file as memory: leaves larger than memory are filled where they will lie."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import prod
from pathlib import Path

import numpy as np

from bridge.target.explain import explained

Shape = tuple[int, ...]


@contextmanager
def mapped_file(
    path: Path, head: bytes, tensors: Mapping[str, tuple[np.dtype, Shape]], offsets: Mapping[str, int], *, shown: str
) -> Iterator[dict[str, np.ndarray]]:
    """Make a file of its full length and give its tensors as arrays to fill; on the way out it is on the disk.

    The disk's room is taken first: a disk that is full says so here, and not as a signal in the midst of filling.
    """
    nbytes = len(head) + sum(prod(shape) * dtype.itemsize for dtype, shape in tensors.values())
    with explained(Path(shown), "cannot be written"):
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o666)
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(descriptor, 0, nbytes)
            else:
                os.truncate(descriptor, nbytes)
            memory = mmap.mmap(descriptor, nbytes)
        finally:
            os.close(descriptor)
    memory[: len(head)] = head
    flat = np.frombuffer(memory, np.uint8)
    yield {key: _array(flat, offsets[key], dtype, shape) for key, (dtype, shape) in tensors.items()}
    with explained(Path(shown), "cannot be written"):
        memory.flush()


def _array(flat: np.ndarray, offset: int, dtype: np.dtype, shape: Shape) -> np.ndarray:
    nbytes = prod(shape) * dtype.itemsize
    return flat[offset : offset + nbytes].view(dtype).reshape(shape)
