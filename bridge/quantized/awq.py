"""AWQ, as AutoAWQ's "gemm" packs it: eight columns of `(in, out)` a word, in the order that its kernel unpacks them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import lcm

import numpy as np

from bridge._text import quote
from bridge.quantized.affine import bound
from bridge.quantized.config import Config
from bridge.quantized.family import Family, Layout, Module, dtypes
from bridge.quantized.form import Form
from bridge.quantized.grid import spread
from bridge.quantized.rounding import finish
from bridge.quantized.view import Array, Box, Chunked, Scratch, Shape, covering

_EACH = 8  # columns a word


@dataclass(frozen=True, slots=True)
class Awq(Chunked):
    """`v = (code − zero) · scale`, in the dtype of the scales, transposed.

    - `group`: how many inputs share a scale.
    - `through`: the dtype of the scales.
    - `zeros`: whether there are zero points.
    """

    group: int
    through: np.dtype
    zeros: bool = True

    @property
    def grain(self) -> Shape:
        return _EACH, self.group

    def boxes(self, box: Box) -> Sequence[Box]:
        rows, columns = box
        words, groups = covering(rows, _EACH), covering(columns, self.group)
        return [(columns, words), (groups, rows), *([(groups, words)] if self.zeros else [])]

    def tile(self, box: Box) -> Shape:
        return 256, lcm(self.group, 128) if self.group < 256 else 128

    def chunk(self, box: Box, parts: Sequence[Array], out: Array, scratch: Scratch) -> None:
        rows, columns = box
        skipped = rows.start % _EACH
        within = slice(skipped, skipped + len(rows))
        values = scratch.take("v", (len(columns), parts[0].shape[1] * _EACH), np.float32)
        np.copyto(values, _unpack(parts[0], scratch, "codes"))
        values = values[:, within]
        factors = parts[1].astype(np.float32)
        turned = (columns, rows)
        with np.errstate(all="ignore"):
            if self.zeros:
                zeros = _unpack(parts[2], scratch, "zeros").astype(np.float32)[:, within]
                spread(zeros, turned, (self.group, 1), np.subtract, values)
            else:
                np.subtract(values, np.float32(8), out=values)
            spread(factors, turned, (self.group, 1), np.multiply, values)
        narrow = scratch.take("out", values.shape, out.dtype)
        finish(values, narrow, scratch, through=self.through, bound=bound(factors, 4))
        np.copyto(out, narrow.T)


def _unpack(words: Array, scratch: Scratch, name: str) -> Array:
    """`(n, words)` to `(n, 8 words)` of uint16. Even columns are the lower half of a word, odd ones the upper."""
    raw = np.ascontiguousarray(words).view(np.uint32)
    both = scratch.take(name, (*raw.shape, 4), np.uint32)
    for number in range(4):
        shifted = both[:, :, number]
        np.right_shift(raw, 4 * number, out=shifted)
        np.bitwise_and(shifted, 0x000F000F, out=shifted)
    return both.view(np.uint16).reshape(len(raw), -1)


def _check(config: Config) -> None:
    for name in ("version", "format"):
        layout = config.fields.get(name)
        if layout is not None and str(layout).lower() != "gemm":
            config.refuse(f"says {name} {quote(str(layout))}, which is not read for AWQ; 'gemm' is")


def _build(module: Module) -> Form | None:
    head, scale, zero = module.head, module.need("scale", "scales"), module.get("zero")
    bits = module.number("bits", module.number("w_bit", 4))
    if bits != 4 or len(head.shape) != 2 or len(scale.shape) != 2:
        module.refuse(
            f"has codes of {bits} bits and {len(head.shape)} axes; 4 bits and 2 axes are read for AWQ",
            "Take the stored tensors with quantized='keep'.",
        )
    columns, rows = head.shape[0], head.shape[1] * _EACH
    group = module.number("group_size", module.number("q_group_size", -1))
    group = columns if group is None or group <= 0 else group
    groups = -(-columns // group)
    if tuple(scale.shape) != (groups, rows) or scale.dtype.itemsize == 1:
        module.misfit(wanted=f"{columns} inputs in groups of {group} take ({groups}, {rows})")
    if zero is None and module.settings.get("zero_point") is not False:
        module.need("zero", "qzeros")
    if zero is not None and (tuple(zero.shape) != (groups, head.shape[1]) or zero.dtype != np.int32):
        module.misfit("zero", wanted=f"{groups} groups of {rows} zero points")
    view = Awq(group, scale.dtype, zeros=zero is not None)
    roles = ("head", "scale", *(["zero"] if zero is not None else []))
    return Form("awq int4", f"in groups of {group}", 4, (rows, columns), module.dtype("scale"), view, roles)


FAMILY = Family(
    layouts=(
        Layout(
            head=".qweight",
            dtypes=dtypes(np.int32),
            logical=".weight",
            roles={"scale": (".scales",), "zero": (".qzeros",)},
            build=_build,
            telling=(".qweight", ".qzeros", ".scales"),
        ),
    ),
    check=_check,
)
