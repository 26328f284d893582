"""AWQ, as AutoAWQ's "gemm" packs it: eight columns of `(in, out)` a word, in the order that its kernel unpacks them.

The words of a chunk are turned around first, an eighth of the elements; each nibble is then a row of the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bridge._text import quote
from bridge.quantized.affine import TILE, Scales, affine
from bridge.quantized.config import QuantizationConfig
from bridge.quantized.format import QuantizedFormat, StoredModule, StoredNames, dtypes
from bridge.quantized.logical import QuantizedForm
from bridge.quantized.unpack import nibbles, turned
from bridge.quantized.view import Array, Box, Chunked, Scratch, Shape, covering

_EACH = 8  # columns a word
_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # which of them each nibble is, from the lowest
_PLACES = [_ORDER.index(column) for column in range(_EACH)]


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
        found: list[Box] = [(columns, words), (groups, rows)]
        return [*found, (groups, words)] if self.zeros else found

    def tile(self, box: Box) -> Shape:
        return TILE

    def chunk(self, box: Box, parts: Sequence[Array], out: Array, scratch: Scratch) -> None:
        rows, columns = box
        skipped = rows.start % _EACH
        within = slice(skipped, skipped + len(rows))
        codes = scratch.take("codes", (parts[0].shape[1] * _EACH, len(columns)), np.uint8)
        _unpack(turned(parts[0], scratch), codes, scratch)
        factors = np.ascontiguousarray(parts[1].T).astype(np.float32)
        zeros: Array | int = 8
        if self.zeros:
            few = nibbles(np.ascontiguousarray(parts[2]).view(np.uint8), scratch, "zeros")
            every = few.reshape(len(few), -1, _EACH)[:, :, _PLACES].reshape(len(few), -1)
            zeros = every.T[within].astype(np.float32)
        by = Scales(4, box, (1, self.group), zeros, factors)
        affine(codes[within], out, scratch, by, through=self.through)


def _unpack(words: Array, out: Array, scratch: Scratch) -> None:
    """Words `(n, columns)` to their codes `(8 n, columns)`: of each half of a word one nibble after the other."""
    rows = out.reshape(len(words), _EACH, -1)
    halves = words.view(np.uint16)
    code = scratch.take("code", halves.shape, np.uint16)
    for nibble in range(_EACH // 2):
        np.right_shift(halves, 4 * nibble, out=code)
        np.bitwise_and(code, 15, out=code)
        low, high = code[:, 0::2], code[:, 1::2]
        np.copyto(rows[:, _ORDER[nibble]], low, casting="unsafe")
        np.copyto(rows[:, _ORDER[nibble + _EACH // 2]], high, casting="unsafe")


def _check(config: QuantizationConfig) -> None:
    for name in ("version", "format"):
        layout = config.fields.get(name)
        if layout is not None and str(layout).lower() != "gemm":
            config.refuse(f"says {name} {quote(str(layout))}, which is not read for AWQ; 'gemm' is")


def _build(module: StoredModule) -> QuantizedForm | None:
    head, scale, zero = module.head, module.need("scale", "scales"), module.get("zero")
    bits = module.number("bits", module.number("w_bit", 4))
    if bits != 4 or len(head.shape) != 2 or len(scale.shape) != 2:
        module.refuse(
            f"has codes of {bits} bits and {len(head.shape)} axes; 4 bits and 2 axes are read for AWQ",
            "Take the stored tensors with quantized='keep'",
        )
    columns, rows = head.shape[0], head.shape[1] * _EACH
    group = module.number("group_size", module.number("q_group_size", -1))
    group = max(columns, 1) if group is None or group <= 0 else group
    groups = -(-columns // group)
    if tuple(scale.shape) != (groups, rows) or scale.dtype.itemsize == 1:
        module.misfit(wanted=f"{columns} inputs in groups of {group} take ({groups}, {rows})")
    if zero is None and module.settings.get("zero_point") is not False:
        module.need("zero", "qzeros")
    if zero is not None and (tuple(zero.shape) != (groups, head.shape[1]) or zero.dtype != np.int32):
        module.misfit("zero", wanted=f"{groups} groups of {rows} zero points")
    view = Awq(group, scale.dtype, zeros=zero is not None)
    roles = ("head", "scale", *(["zero"] if zero is not None else []))
    return QuantizedForm("awq int4", f"in groups of {group}", 4, (rows, columns), module.dtype("scale"), view, roles)


FORMAT = QuantizedFormat(
    stored=(
        StoredNames(
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
