"""MXFP4: E2M1 codes of 4 bits, 32 of which share a power of two.

gpt-oss (`quant_method` "mxfp4") keeps experts as `(experts, out, groups, 16)` bytes, and means `(experts, in, out)`.
Rows, `(out, in / 2)`, are what compressed-tensors, ModelOpt, MLX and DeepSeek write. Every product is exact in bfloat16
(or infinite), so that one look-up gives the final bits of two elements. The judge is transformers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bridge.quantized.floats import BFLOAT16, E8M0, scaled_pairs, widen
from bridge.quantized.format import QuantizedFormat, StoredModule, StoredNames, dtypes
from bridge.quantized.logical import QuantizedForm
from bridge.quantized.rounding import finish
from bridge.quantized.unpack import loose
from bridge.quantized.view import Array, Box, Chunked, Scratch, Shape, covering

GROUP = 32


def _products(stored: Array, exponents: Array, *, skipped: int, largest: str, scratch: Scratch) -> Array:
    """Both products of each byte, in a row: bfloat16 as uint16, shape `(rows, 2 · bytes)`.

    **Arguments:**

    - `stored`: shape `(rows, bytes)`.
    - `exponents`: shape `(rows, groups)`.
    - `skipped`: bytes of the first group that are not here.
    - `largest`: what exponent 255 is.
    """
    rows, nbytes = stored.shape
    index, pair = (scratch.take(name, (rows, nbytes), dtype) for name, dtype in (("index", "u2"), ("pair", "u4")))
    np.copyto(index, stored)
    # Repeated, for a row of them takes less time than groups of 16 one by one.
    each = np.repeat(exponents.astype(np.uint16) << 8, GROUP // 2, axis=1)
    np.bitwise_or(index, each[:, skipped : skipped + nbytes], out=index)
    np.take(scaled_pairs(largest), index, out=pair, mode="wrap")
    return pair.view(np.uint16)


def _put(halves: Array, out: Array, scratch: Scratch) -> None:
    """bfloat16 as uint16 into whatever was asked for."""
    if out.dtype == BFLOAT16:
        np.copyto(out.view(np.uint16), halves)
    elif out.dtype == np.float32 and out.flags.c_contiguous:
        widen(halves, out, scratch)
    else:
        values = scratch.take("v", halves.shape, np.float32)
        widen(halves, values, scratch)
        finish(values, out, scratch)


@dataclass(frozen=True, slots=True)
class MicroscaledRows(Chunked):
    """Two codes a byte along the rows, the lower half first; an exponent for 32.

    - `rank`: how many axes there are.
    - `word`: how many bytes one stored element has: 1, or 4 for MLX's words.
    - `largest`: what exponent 255 is, as in `scaled_pairs`.
    """

    rank: int
    word: int
    largest: str

    @property
    def grain(self) -> Shape:
        return (*(1 for _ in range(self.rank - 1)), GROUP)

    def boxes(self, box: Box) -> Sequence[Box]:
        before, columns = box[:-1], box[-1]
        return (*before, covering(columns, 2 * self.word)), (*before, covering(columns, GROUP))

    def chunk(self, box: Box, parts: Sequence[Array], out: Array, scratch: Scratch) -> None:
        rows, columns = len(box[-2]), box[-1]
        stored = np.ascontiguousarray(parts[0]).view(np.uint8).reshape(rows, -1)
        exponents = parts[1].view(np.uint8).reshape(rows, -1)
        first = columns.start // (2 * self.word) * self.word  # the first byte that is here
        halves = _products(stored, exponents, skipped=first % 16, largest=self.largest, scratch=scratch)
        skipped = columns.start - 2 * first
        _put(halves[:, skipped : skipped + len(columns)], out.reshape(rows, len(columns)), scratch)


@dataclass(frozen=True, slots=True)
class MicroscaledExperts(Chunked):
    """gpt-oss's experts: `(experts, out, groups, 16)` with `(experts, out, groups)` mean `(experts, in, out)`."""

    largest: str = "power"

    @property
    def grain(self) -> Shape:
        return 1, GROUP, 1

    def boxes(self, box: Box) -> Sequence[Box]:
        experts, columns, rows = box
        groups = covering(columns, GROUP)
        return (experts, rows, groups, range(16)), (experts, rows, groups)

    def tile(self, box: Box) -> Shape:
        return 1, 512, 512

    def chunk(self, box: Box, parts: Sequence[Array], out: Array, scratch: Scratch) -> None:
        _, columns, rows = box
        stored, exponents = parts[0].view(np.uint8)[0], parts[1].view(np.uint8)[0]
        flat = np.ascontiguousarray(stored).reshape(len(rows), -1)
        halves = _products(flat, exponents, skipped=0, largest=self.largest, scratch=scratch)
        first = columns.start % GROUP
        turned = loose(halves[:, first : first + len(columns)], scratch).T
        if out.dtype == BFLOAT16:
            np.copyto(out[0].view(np.uint16), turned)
            return
        near = scratch.take("turned", turned.shape, np.uint16)
        np.copyto(near, turned)
        _put(near, out[0], scratch)


def rows(module: StoredModule, *, word: int = 1, role: str = "scale") -> QuantizedForm:
    """The form of codes in rows with a scale for 32 of them."""
    head, scale = module.head, module.need(role, "weight_scale")
    shape = (*head.shape[:-1], head.shape[-1] * 2 * word)
    if len(shape) < 2 or tuple(scale.shape) != (*shape[:-1], -(-shape[-1] // GROUP)):
        module.misfit(role, wanted="one scale for 32 codes")
    view = MicroscaledRows(len(shape), word, largest="nan" if scale.dtype == E8M0 else "inf")
    return QuantizedForm("mxfp4", "in groups of 32", 4, shape, module.dtype(), view, ("head", role))


def _experts(module: StoredModule) -> QuantizedForm | None:
    blocks, scale = module.head.shape, module.get("scale")
    if module.config.method is None and (scale is None or len(blocks) != 4 or scale.dtype not in (np.uint8, E8M0)):
        return None  # tensors that happen to be called so
    scale = module.need("scale", "_scales")
    if len(blocks) != 4 or blocks[3] != 16 or tuple(scale.shape) != tuple(blocks[:3]):
        module.misfit(wanted="blocks are (experts, out, groups, 16), scales (experts, out, groups)")
    if scale.dtype not in (np.uint8, E8M0):
        module.misfit(wanted=f"exponents of one byte, not {scale.dtype}")
    experts, out, groups, _ = blocks
    view = MicroscaledExperts(largest="nan" if scale.dtype == E8M0 else "power")
    shape = (experts, groups * GROUP, out)
    return QuantizedForm("mxfp4", "in groups of 32, transposed", 4, shape, module.dtype(), view, ("head", "scale"))


FORMAT = QuantizedFormat(
    stored=(
        StoredNames(
            head="_blocks",
            dtypes=dtypes(np.uint8),
            logical="",
            roles={"scale": ("_scales",)},
            build=_experts,
            telling=("proj_blocks", "proj_scales"),
        ),
    ),
    alone=True,
)
