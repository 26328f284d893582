"""MLX: words along the rows, a scale and a bias for each group; or MXFP4, NVFP4 and MXFP8 in words.

The judge is mlx on its CPU, which rounds the product and the sum to the dtype of the scales.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import lcm
from typing import Any

import numpy as np

from bridge.quantized import mxfp4
from bridge.quantized.config import QuantizationConfig, is_object
from bridge.quantized.floats import FLOAT8, look_up, scales, table
from bridge.quantized.format import QuantizedFormat, Settings, StoredModule, StoredNames, dtypes
from bridge.quantized.grid import Grid, spread
from bridge.quantized.logical import QuantizedForm
from bridge.quantized.nvfp4 import Nvfp4, nvfp4
from bridge.quantized.rounding import finish
from bridge.quantized.unpack import Packing
from bridge.quantized.view import Array, Box, Chunked, Scratch, Shape, covering

_BITS = (2, 3, 4, 5, 6, 8)


@dataclass(frozen=True, slots=True)
class Affine(Chunked):
    """`v = scale · code + bias`, the product and then the sum rounded to the dtype of the scales.

    - `rank`: how many axes there are.
    - `bits`: of a code.
    - `group`: how many codes share a scale and a bias.
    - `through`: the dtype of both.
    - `fused`: whether there is one rounding, of the sum, as transformers' kernels for Metal have it.
    """

    rank: int
    bits: int
    group: int
    through: np.dtype
    fused: bool = False

    @property
    def grain(self) -> Shape:
        return (*(1 for _ in range(self.rank - 1)), lcm(self.group, Packing(self.bits).period[0]))

    def boxes(self, box: Box) -> Sequence[Box]:
        factors = Grid(self._block, tuple(range(self.rank))).box(box)
        return (*box[:-1], Packing(self.bits).behind(box[-1])), factors, factors

    @property
    def _block(self) -> Shape:
        return (*(1 for _ in range(self.rank - 1)), self.group)

    def chunk(self, box: Box, parts: Sequence[Array], out: Array, scratch: Scratch) -> None:
        rows, columns = len(box[-2]), box[-1]
        codes = Packing(self.bits).unpack(parts[0].reshape(rows, -1), columns, scratch)
        values = scratch.take("v", codes.shape, np.float32)
        np.copyto(values, codes)
        factors, biases = (part.reshape(rows, -1).astype(np.float32) for part in parts[1:])
        with np.errstate(all="ignore"):
            spread(factors, box, self._block, np.multiply, values)
            if not self.fused:
                finish(values, values, scratch, through=self.through)
            spread(biases, box, self._block, np.add, values)
        finish(values, out.reshape(codes.shape), scratch, through=None if self.fused else self.through)


@dataclass(frozen=True, slots=True)
class Float8Words(Chunked):
    """E4M3 codes, four to a word, and an exponent for 32 of them."""

    rank: int

    @property
    def grain(self) -> Shape:
        return (*(1 for _ in range(self.rank - 1)), 32)

    def boxes(self, box: Box) -> Sequence[Box]:
        return (*box[:-1], covering(box[-1], 4)), (*box[:-1], covering(box[-1], 32))

    def chunk(self, box: Box, parts: Sequence[Array], out: Array, scratch: Scratch) -> None:
        rows, columns = len(box[-2]), box[-1]
        skipped = columns.start % 4
        stored = np.ascontiguousarray(parts[0]).view(np.uint8).reshape(rows, -1)[:, skipped : skipped + len(columns)]
        values = scratch.take("v", stored.shape, np.float32)
        look_up(table(FLOAT8), stored, values)
        with np.errstate(all="ignore"):
            spread(scales(parts[1].reshape(rows, -1)), box, (1, 32), np.multiply, values)
        finish(values, out.reshape(stored.shape), scratch)


def _told(config: QuantizationConfig) -> Callable[[str], Settings]:
    """A module's own settings stand beside the general ones, under its name."""
    own: dict[str, Settings] = {
        name: {**config.fields, **value} for name, value in config.fields.items() if is_object(value)
    }
    return lambda module: own.get(module, config.fields)


def _build(module: StoredModule) -> QuantizedForm | None:
    head, scale = module.head, module.get("scale")
    if len(head.shape) < 2:
        return None
    if scale is None:
        if module.config.method is not None:
            module.need("scale", "scales")
        return None
    if module.config.method is None:
        if tuple(scale.shape[:-1]) != tuple(head.shape[:-1]) or module.get("bias") is None:
            return None  # integers that happen to have scales beside them
        module.refuse(
            "is packed as MLX packs, but no config says how",
            "Say how, with its own numbers: quantized={'quant_method': 'mlx', 'bits': 4, 'group_size': 64}",
        )
    mode = module.settings.get("mode") or "affine"
    if mode == "affine":
        return _affine(module, scale)
    if mode not in ("mxfp4", "nvfp4", "mxfp8"):
        module.refuse(f"has the mode {mode!r}; affine, mxfp4, nvfp4 and mxfp8 are read", "Use quantized='keep'")
    if scale.dtype != np.uint8:
        module.misfit(wanted=f"{mode} has scales of one byte")
    if mode == "mxfp4":
        return mxfp4.rows(module, word=4)
    if mode == "nvfp4":
        return nvfp4(module, Nvfp4(len(head.shape), word=4), ("head", "scale"), scale="scales")
    shape = (*head.shape[:-1], head.shape[-1] * 4)
    if tuple(scale.shape) != (*shape[:-1], -(-shape[-1] // 32)):
        module.misfit(wanted="one scale for 32 codes")
    return QuantizedForm(
        "mxfp8", "in groups of 32", 8, shape, module.dtype(), Float8Words(len(shape)), ("head", "scale")
    )


def _affine(module: StoredModule, scale: Any) -> QuantizedForm:
    head, bits, group = module.head, module.number("bits", 4), module.number("group_size", 64)
    known = (2, 4, 8) if module.config.method == "metal" else _BITS
    if bits is None or bits not in known or group is None or group < 1:
        module.refuse(
            f"has codes of {bits} bits in groups of {group}; {', '.join(map(str, known))} bits are read",
            "Use quantized='keep'",
        )
    bias = module.need("bias", "biases")
    columns = scale.shape[-1] * group if scale.shape else -1
    if (
        columns < 0
        or tuple(scale.shape[:-1]) != tuple(head.shape[:-1])
        or Packing(bits).words(columns) != head.shape[-1]
    ):
        module.misfit(wanted=f"{bits} bits in groups of {group}")
    if bias.shape != scale.shape or bias.dtype != scale.dtype or scale.dtype.itemsize == 1:
        module.misfit("bias", wanted="a bias for each scale")
    shape = (*head.shape[:-1], columns)
    view = Affine(len(shape), bits, group, scale.dtype, fused=module.config.method == "metal")
    how = f"in groups of {group}"
    return QuantizedForm(f"mlx int{bits}", how, bits, shape, module.dtype("scale"), view, ("head", "scale", "bias"))


FORMAT = QuantizedFormat(
    stored=(
        StoredNames(
            head=".weight",
            dtypes=dtypes(np.uint32),
            logical=".weight",
            roles={"scale": (".scales",), "bias": (".biases", ".qbiases")},
            build=_build,
            telling=(".scales", ".biases", ".qbiases"),
        ),
    ),
    told=_told,
    alone=True,
)
