"""How far two results are apart, in units of what rounding may do; and how far right ones are.

An element is off by `|got - want| / (eps · max(|want|, q))`, where q is the size that a wrong answer has: for a product
`sqrt(x²·w² + b²)`. docs/checking.md has the distributions that the limits come from.
"""

from __future__ import annotations

from typing import NamedTuple

import ml_dtypes
import numpy as np

_EPS = {
    np.dtype(np.float64): 2.0**-52,
    np.dtype(np.float32): 2.0**-23,
    np.dtype(np.float16): 2.0**-10,
    np.dtype(ml_dtypes.bfloat16): 2.0**-7,
}
_LIMITS = {
    "linear": (256.0, 3.0),
    "norm": (5.5, 2.5),
    "embedding": (0.5, 0.5),
    "recurrent": (128.0, 16.0),
    "steps": (256.0, 24.0),
}
"""Of each kind of layer, for float32 and for the shorter dtypes. `steps` are attention and layers of the user's own."""


class Compared(NamedTuple):
    """What a layer gave, what PyTorch did, and the size of a wrong answer, all of one shape; `kind` of `_LIMITS`."""

    got: np.ndarray
    want: np.ndarray
    size: np.ndarray
    kind: str
    dtype: np.dtype

    @property
    def ulps(self) -> float:
        """The largest distance of an element."""
        got, want, size = (np.asarray(side, np.float64) for side in (self.got, self.want, self.size))
        same = (got == want) | (np.isnan(got) & np.isnan(want))
        with np.errstate(all="ignore"):
            off = np.abs(got - want) / (_EPS[self.dtype] * np.maximum(np.maximum(np.abs(want), size), 1e-300))
        off = np.where(same, 0.0, np.where(np.isfinite(off), off, np.inf))
        return float(off.max(initial=0.0))

    @property
    def limit(self) -> float:
        """How far apart right results are at most."""
        return _LIMITS[self.kind][_EPS[self.dtype] > 2.0**-23]

    @property
    def agrees(self) -> bool:
        """Whether rounding explains the distance."""
        return self.ulps <= self.limit


def coarser(*dtypes: np.dtype) -> np.dtype:
    """The floating dtype that rounds most; float32 where there is none."""
    floats = [np.dtype(dtype) for dtype in dtypes if np.dtype(dtype) in _EPS]
    return max(floats, key=_EPS.__getitem__, default=np.dtype(np.float32))
