"""The integers of compressed-tensors: packed in words along the rows, or of 8 bits as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import lcm

import numpy as np

from bridge.quantized.affine import Scales, affine
from bridge.quantized.floats import scales
from bridge.quantized.grid import Grid
from bridge.quantized.unpack import Packing
from bridge.quantized.view import Array, Box, Chunked, Scratch, Shape


@dataclass(frozen=True, slots=True)
class Packed(Chunked):
    """`v = (code − zero) · scale`, rounded to the dtype of the scales.

    - `packing`: how codes lie in words; they are stored with 2^(bits − 1) added. `None`: one byte each, signed.
    - `grid`: of the scales; of zero points too where they are bytes.
    - `through`: the dtype of the scales.
    - `zeros`: `None`, `"bytes"` (signed, like the scales), or `"words"`: packed as the codes are, but down the columns.
    - `permuted`: how many columns there are, where a part says for each which group is its own; else 0.
    """

    packing: Packing | None
    grid: Grid
    through: np.dtype
    zeros: str | None = None
    permuted: int = 0

    @property
    def grain(self) -> Shape:
        rows, columns = (1 if axis not in self.grid.axes else self.grid.block[axis] for axis in (0, 1))
        codes = self.packing.period[0] if self.packing is not None else 1
        if self.zeros == "words":
            rows = lcm(rows, codes)
        return rows, codes if self.permuted else lcm(columns, codes)

    def boxes(self, box: Box) -> Sequence[Box]:
        rows, columns = box
        codes = columns if self.packing is None else self.packing.behind(columns)
        factors = self.grid.box((rows, range(self.permuted)) if self.permuted else box)
        found: list[Box] = [(rows, codes), factors]
        if self.zeros == "words" and self.packing is not None:
            found.append((self.packing.behind(rows), factors[1]))
        elif self.zeros is not None:
            found.append(factors)
        if self.permuted:
            found.append((columns,))
        return found

    def chunk(self, box: Box, parts: Sequence[Array], out: Array, scratch: Scratch) -> None:
        factors = scales(self.grid.matrix(parts[1]))
        bits = 8 if self.packing is None else self.packing.bits
        codes = parts[0] if self.packing is None else self.packing.unpack(parts[0], box[1], scratch)
        groups = parts[-1] if self.permuted else None
        by = Scales(bits, box, self.grid.block, self._zeros(box, parts, scratch), factors, groups)
        affine(codes, out, scratch, by, through=self.through)

    def _zeros(self, box: Box, parts: Sequence[Array], scratch: Scratch) -> Array | int:
        """As the codes are stored: with 2^(bits − 1) added where they are packed."""
        middle = 0 if self.packing is None else 1 << self.packing.bits - 1
        if self.zeros is None:
            return middle
        if self.zeros == "words" and self.packing is not None:
            packed = np.ascontiguousarray(parts[2].T)
            return self.packing.unpack(packed, box[0], scratch, "zeros").T.astype(np.float32)
        return self.grid.matrix(parts[2]).astype(np.float32) + np.float32(middle)
