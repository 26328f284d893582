"""Values that a file of torch.save does not store as they are: big-endian ones, and arrays inside the pickle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from bridge.format.view import Box


class ByteSwappedView:
    """Numbers whose bytes stand in the other order; of a complex number those of each half."""

    def __init__(self, rank: int) -> None:
        self.grain = (1,) * rank

    def boxes(self, box: Box) -> Sequence[Box]:
        """The same box of the tensor that is stored."""
        return [box]

    def values(self, box: Box, parts: Sequence[np.ndarray], out: np.ndarray) -> None:
        """Copied, and turned round in place."""
        np.copyto(out, parts[0])
        bits = out if out.dtype.kind == "c" else out.view(f"u{out.itemsize}")  # numpy knows no bfloat16
        bits.byteswap(inplace=True)


class ArrayView:
    """An array that is in memory since the pickle was read. A byte of the file stands for it among the reads."""

    def __init__(self, values: np.ndarray) -> None:
        """**Arguments:** the values, little-endian."""
        self._values = values
        self.grain = (1,) * values.ndim

    def boxes(self, box: Box) -> Sequence[Box]:
        """All of the one byte."""
        return [()]

    def values(self, box: Box, parts: Sequence[np.ndarray], out: np.ndarray) -> None:
        """A copy of them."""
        np.copyto(out, self._values[tuple([slice(r.start, r.stop) for r in box])])
