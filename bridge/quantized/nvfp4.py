"""NVFP4: E2M1 codes of 4 bits, a scale in E4M3 for 16 of them, and one float32 for the whole tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bridge.quantized.floats import FLOAT8, fp4_codes, look_up, pairs, scales
from bridge.quantized.format import StoredModule
from bridge.quantized.grid import spread
from bridge.quantized.logical import QuantizedForm
from bridge.quantized.rounding import finish
from bridge.quantized.view import Array, Box, Chunked, Scratch, Shape, covering

GROUP = 16


@dataclass(frozen=True, slots=True)
class Nvfp4(Chunked):
    """`v = code · (scale ∘ whole)`, in float32.

    - `rank`: how many axes there are.
    - `word`: how many bytes one stored element has: 1, or 4 for MLX's words.
    - `divides`: whether the scale of the whole divides, as in compressed-tensors; else it multiplies.
    - `whole`: how many axes the scale of the whole is stored with; `None` where there is none.
    - `negative_zero`: whether code 8 is −0; else 0.
    - `inputs`: whether a part multiplies the columns: what the layer multiplies its input by.
    """

    rank: int
    word: int = 1
    divides: bool = False
    whole: int | None = None
    negative_zero: bool = True
    inputs: bool = False

    @property
    def grain(self) -> Shape:
        return (*(1 for _ in range(self.rank - 1)), GROUP)

    def boxes(self, box: Box) -> Sequence[Box]:
        before, columns = box[:-1], box[-1]
        found: list[Box] = [(*before, covering(columns, 2 * self.word)), (*before, covering(columns, GROUP))]
        if self.whole is not None:
            found.append((range(1),) * self.whole)
        if self.inputs:
            found.append((columns,))
        return found

    def chunk(self, box: Box, parts: Sequence[Array], out: Array, scratch: Scratch) -> None:
        rows, columns = len(box[-2]), box[-1]
        stored = np.ascontiguousarray(parts[0]).view(np.uint8).reshape(rows, -1)
        factors = scales(parts[1] if parts[1].dtype == FLOAT8 else parts[1].view(FLOAT8)).reshape(rows, -1)
        with np.errstate(all="ignore"):
            if self.whole is not None:
                (np.divide if self.divides else np.multiply)(factors, parts[2].reshape(1, 1), out=factors)
            both = scratch.take("both", stored.shape, np.uint64)
            look_up(pairs(fp4_codes(negative_zero=self.negative_zero)), stored, both)
            skipped = columns.start % (2 * self.word)
            values = both.view(np.float32)[:, skipped : skipped + len(columns)]
            spread(factors, box, (1, GROUP), np.multiply, values)
            if self.inputs:
                np.multiply(values, parts[-1].astype(np.float32), out=values)
        finish(values, out.reshape(rows, len(columns)), scratch)


def nvfp4(module: StoredModule, view: Nvfp4, roles: tuple[str, ...], *, scale: str = "weight_scale") -> QuantizedForm:
    """The form of a module in NVFP4, once its scales are seen to fit."""
    head, factors = module.head, module.need("scale", scale)
    shape = (*head.shape[:-1], head.shape[-1] * 2 * view.word)
    if len(shape) < 2 or tuple(factors.shape) != (*shape[:-1], -(-shape[-1] // GROUP)):
        module.misfit(wanted="one scale for 16 codes")
    return QuantizedForm("nvfp4", "in groups of 16", 4, shape, module.dtype(), view, roles)
