"""How far apart floats are, in steps of their dtype."""

from __future__ import annotations

import numpy as np


def apart(one: np.ndarray, other: np.ndarray) -> int:
    """The most steps that two arrays of one dtype and shape are apart; 0 where all bits are equal."""
    assert (one.dtype, one.shape) == (other.dtype, other.shape)
    if one.tobytes() == other.tobytes():
        return 0
    signed = np.dtype(f"i{one.dtype.itemsize}")
    steps = [np.ascontiguousarray(each).view(signed).astype(np.int64) for each in (one, other)]
    ordered = [np.where(n < 0, np.iinfo(signed).min - n, n) for n in steps]
    return int(np.abs(ordered[0] - ordered[1]).max())
