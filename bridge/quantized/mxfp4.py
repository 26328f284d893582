"""MXFP4: E2M1 codes of 4 bits, 32 of which share a power of two.

gpt-oss (`quant_method` "mxfp4") keeps experts as `(experts, out, groups, 16)` bytes, and means `(experts, in, out)`.
Rows, `(out, in / 2)`, are what compressed-tensors, ModelOpt, MLX and DeepSeek write. Every product is exact in bfloat16
(or infinite), so that one look-up gives the final bits of two elements. The judge is transformers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bridge.quantized.family import Family, Layout, Module, dtypes
from bridge.quantized.floats import BFLOAT16, E8M0, scaled_pairs, widen
from bridge.quantized.form import Form
from bridge.quantized.rounding import finish
from bridge.quantized.view import Array, Box, Chunked, Scratch, Shape, covering

GROUP = 32


def _products(stored: Array, exponents: Array, *, largest: str, out: Array, scratch: Scratch) -> None:
    """Both products of each byte.

    **Arguments:**

    - `stored`: bytes, any shape.
    - `exponents`: bytes, of a shape that goes with it.
    - `largest`: what exponent 255 is.
    - `out`: uint32, of the shape of `stored`, C-contiguous: two bfloat16 each.
    """
    index = scratch.take("index", stored.shape, np.uint16)
    np.copyto(index, stored)
    np.bitwise_or(index, exponents.astype(np.uint16) << 8, out=index)
    np.take(scaled_pairs(largest), index, out=out, mode="wrap")


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
class Rows(Chunked):
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
        halves = scratch.take("halves", (rows, 2 * stored.shape[1]), np.uint16)
        whole = halves.view(np.uint32).reshape(rows, -1)
        if first % 16 == 0 and stored.shape[1] % 16 == 0:
            groups = (rows, exponents.shape[1], 16)
            _products(
                stored.reshape(groups),
                exponents[:, :, None],
                largest=self.largest,
                out=whole.reshape(groups),
                scratch=scratch,
            )
        else:
            skipped = first % 16
            each = np.repeat(exponents, 16, axis=1)[:, skipped : skipped + stored.shape[1]]
            past = int(stored.shape[1]) - int(each.shape[1])  # bytes past the last group
            each = np.pad(each, ((0, 0), (0, past)))
            _products(stored, each, largest=self.largest, out=whole, scratch=scratch)
        skipped = columns.start - 2 * first
        _put(halves[:, skipped : skipped + len(columns)], out.reshape(rows, len(columns)), scratch)


@dataclass(frozen=True, slots=True)
class Experts(Chunked):
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
        return 1, 512, 256

    def chunk(self, box: Box, parts: Sequence[Array], out: Array, scratch: Scratch) -> None:
        _, columns, rows = box
        stored, exponents = parts[0].view(np.uint8)[0], parts[1].view(np.uint8)[0]
        # Bytes are turned around, half as many as elements; then a byte's two elements are two rows of the result.
        # By way of a copy: rows that lie 2^n bytes apart share few lines of a cache.
        near = scratch.take("near", (len(rows), stored.shape[1] * 16), np.uint8)
        np.copyto(near.reshape(stored.shape), stored)
        flat = scratch.take("turned", near.shape[::-1], np.uint8)
        np.copyto(flat, near.T)
        pair = scratch.take("pair", flat.shape, np.uint32)
        groups = (stored.shape[1], 16, len(rows))
        _products(
            flat.reshape(groups),
            np.ascontiguousarray(exponents.T)[:, None],
            largest=self.largest,
            out=pair.reshape(groups),
            scratch=scratch,
        )
        first = columns.start % GROUP
        if first == 0 and len(columns) == 2 * len(flat) and out.dtype == BFLOAT16:
            _apart(pair, out[0].view(np.uint16))
            return
        whole = scratch.take("halves", (2 * len(flat), len(rows)), np.uint16)
        _apart(pair, whole)
        _put(whole[first : first + len(columns)], out[0], scratch)


def _apart(pair: Array, out: Array) -> None:
    """The lower and the upper halves of each row of uint32 as two rows of uint16; overwrites `pair`."""
    two = out.reshape(len(pair), 2, -1)  # splits an axis: no copy
    np.copyto(two[:, 0], pair, casting="unsafe")
    np.right_shift(pair, 16, out=pair)
    np.copyto(two[:, 1], pair, casting="unsafe")


def rows(module: Module, *, word: int = 1, role: str = "scale") -> Form:
    """The form of codes in rows with a scale for 32 of them."""
    head, scale = module.head, module.need(role, "weight_scale")
    shape = (*head.shape[:-1], head.shape[-1] * 2 * word)
    if len(shape) < 2 or tuple(scale.shape) != (*shape[:-1], -(-shape[-1] // GROUP)):
        module.misfit(role, wanted="one scale for 32 codes")
    view = Rows(len(shape), word, largest="nan" if scale.dtype == E8M0 else "inf")
    return Form("mxfp4", "in groups of 32", 4, shape, module.dtype(), view, ("head", role))


def _experts(module: Module) -> Form | None:
    blocks, scale = module.head.shape, module.get("scale")
    if module.config.method is None and (scale is None or len(blocks) != 4 or scale.dtype not in (np.uint8, E8M0)):
        return None  # tensors that happen to be called so
    scale = module.need("scale", "_scales")
    if len(blocks) != 4 or blocks[3] != 16 or tuple(scale.shape) != tuple(blocks[:3]):
        module.misfit(wanted="blocks are (experts, out, groups, 16), scales (experts, out, groups)")
    if scale.dtype not in (np.uint8, E8M0):
        module.misfit(wanted=f"exponents of one byte, not {scale.dtype}")
    experts, out, groups, _ = blocks
    view = Experts(largest="nan" if scale.dtype == E8M0 else "power")
    shape = (experts, groups * GROUP, out)
    return Form("mxfp4", "in groups of 32, transposed", 4, shape, module.dtype(), view, ("head", "scale"))


FAMILY = Family(
    layouts=(
        Layout(
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
