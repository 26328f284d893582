"""What is read at once."""

from __future__ import annotations

import numpy as np

from bridge._values import NamedTuple

CHUNK = 4 << 20
"""Bytes of one read into scratch, of which each thread has a chunk, or over a network."""
CONTIGUOUS = 8 << 20
"""Bytes of one read from a local file straight into its place. Threads that come back from the kernel cost each other a
tenth of a millisecond: 8 MiB are up to a tenth faster than 4, on some machines no faster, and more gain nothing, for at
the end one thread waits longer.
"""


class Source(NamedTuple):
    """A run of a file, of elements of `dtype`. `key` is the one whose bytes it starts with."""

    file: str
    offset: int
    nbytes: int
    key: str
    dtype: np.dtype
