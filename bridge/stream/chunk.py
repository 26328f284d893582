"""What is read at once."""

from __future__ import annotations

import numpy as np

from bridge._values import NamedTuple

CHUNK = 4 << 20
"""Bytes of one read: any size from 1 to 64 MiB is as fast, and scratch is one chunk a thread."""


class Source(NamedTuple):
    """A run of a file, of elements of `dtype`. `key` is the one whose bytes it starts with."""

    file: str
    offset: int
    nbytes: int
    key: str
    dtype: np.dtype
