"""Tensors that an adapter changes without factors: biases that are added, rows and tensors that are its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bridge.adapters.product import FLOAT32, added, narrowed
from bridge.quantized.view import Array, Box, Scratch, Shape


@dataclass(frozen=True)
class Own:
    """A tensor in another dtype than its base's, rounded once to the model's. Its part is the tensor."""

    rank: int

    @property
    def grain(self) -> Shape:
        """As in `View`."""
        return (1,) * self.rank

    def boxes(self, box: Box) -> Sequence[Box]:
        """As in `View`."""
        return (box,)

    def values(self, box: Box, parts: Sequence[Array], out: Array) -> None:
        """As in `View`."""
        with np.errstate(all="ignore"):
            narrowed(parts[0], out)


@dataclass(frozen=True)
class Shifted:
    """`bias + scale · b`. Its parts are both."""

    scale: float

    @property
    def grain(self) -> Shape:
        """As in `View`."""
        return (1,)

    def boxes(self, box: Box) -> Sequence[Box]:
        """As in `View`."""
        return box, box

    def values(self, box: Box, parts: Sequence[Array], out: Array) -> None:
        """As in `View`."""
        bias, more = parts
        dtype = np.dtype(np.float64) if 8 in (bias.dtype.itemsize, out.dtype.itemsize) else FLOAT32
        with np.errstate(all="ignore"):
            added(bias, more.astype(np.float32) * np.float32(self.scale), out, Scratch(), dtype)


@dataclass(frozen=True)
class Patched:
    """A matrix of which some rows are an adapter's. Its parts are the matrix and those rows."""

    rows: tuple[int, ...]

    @property
    def grain(self) -> Shape:
        """As in `View`."""
        return (1, 1)

    def boxes(self, box: Box) -> Sequence[Box]:
        """As in `View`."""
        return box, (range(len(self.rows)), box[1])

    def values(self, box: Box, parts: Sequence[Array], out: Array) -> None:
        """As in `View`."""
        matrix, own = parts
        rows = np.array(self.rows, np.intp)
        (mine,) = np.nonzero((rows >= box[0].start) & (rows < box[0].stop))
        values = np.empty((len(mine), out.shape[1]), out.dtype)
        with np.errstate(all="ignore"):
            narrowed(matrix, out)
            narrowed(own[mine], values)
        out[rows[mine] - box[0].start] = values
