"""NVIDIA's ModelOpt, by `hf_quant_config.json` or a `quantization_config` that names it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bridge.quantized import mxfp4
from bridge.quantized.affine import Scales, affine
from bridge.quantized.floats import E8M0, FLOAT8, scales
from bridge.quantized.format import QuantizedFormat, StoredModule, StoredNames, dtypes
from bridge.quantized.fp8 import CODES, Float8, described, float8
from bridge.quantized.grid import Grid
from bridge.quantized.logical import QuantizedForm
from bridge.quantized.nvfp4 import Nvfp4, nvfp4
from bridge.quantized.packed import Packed
from bridge.quantized.rounding import finish
from bridge.quantized.unpack import nibbles
from bridge.quantized.view import Array, Box, Chunked, Scratch, Shape, covering

_FLOAT32 = np.dtype(np.float32)


@dataclass(frozen=True, slots=True)
class Int4Rows(Chunked):
    """Signed codes of 4 bits, two *rows* a byte, the even one in the lower half: `v = code · scale`, in float32.

    - `grid`: whose scale is which.
    - `inputs`: whether a part multiplies the columns: what the layer multiplies its input by.
    """

    grid: Grid
    inputs: bool

    @property
    def grain(self) -> Shape:
        return 2, self.grid.block[1]

    def boxes(self, box: Box) -> Sequence[Box]:
        found: list[Box] = [(covering(box[0], 2), box[1]), self.grid.box(box)]
        return [*found, (box[1],)] if self.inputs else found

    def chunk(self, box: Box, parts: Sequence[Array], out: Array, scratch: Scratch) -> None:
        both = nibbles(np.ascontiguousarray(parts[0]).view(np.uint8), scratch)
        # Each byte became two columns; two rows are meant.
        codes = both.reshape(*parts[0].shape, 2).transpose(0, 2, 1).reshape(-1, parts[0].shape[1])
        codes = (codes ^ np.uint8(8))[box[0].start % 2 :][: len(box[0])]
        values = out if out.dtype == np.float32 and out.flags.c_contiguous else scratch.take("v", out.shape, np.float32)
        factors = scales(self.grid.matrix(parts[1]))
        affine(codes, values, scratch, Scales(4, box, self.grid.block, 8, factors))
        _inputs(values, parts[-1] if self.inputs else None)
        finish(values, out, scratch)


@dataclass(frozen=True, slots=True)
class Smoothed(Chunked):
    """Another view of float32, its columns multiplied by what the layer multiplies its input by.

    - `inner`: the view; its values are those of float32.
    """

    inner: Chunked

    @property
    def grain(self) -> Shape:
        return self.inner.grain

    def boxes(self, box: Box) -> Sequence[Box]:
        return [*self.inner.boxes(box), (box[-1],)]

    def chunk(self, box: Box, parts: Sequence[Array], out: Array, scratch: Scratch) -> None:
        values = scratch.take("smoothed", out.shape, np.float32)
        self.inner.chunk(box, parts[:-1], values, scratch)
        _inputs(values, parts[-1])
        finish(values, out, scratch)


def _inputs(values: Array, factors: Array | None) -> None:
    if factors is not None:
        with np.errstate(all="ignore"):
            np.multiply(values, factors.astype(np.float32), out=values)


def _pre(module: StoredModule, columns: int) -> bool:
    """Whether there is a `pre_quant_scale`, which has to fit."""
    spec = module.get("inputs")
    if spec is not None and tuple(spec.shape) != (columns,):
        module.misfit("inputs", wanted=f"one number for each of {columns} inputs")
    return spec is not None


def _floats(module: StoredModule) -> QuantizedForm | None:
    if len(module.head.shape) < 2 or (module.config.method is None and module.get("inputs") is None):
        return None
    form = float8(module, scale="weight_scale")
    if not _pre(module, form.shape[-1]):
        return form
    assert isinstance(form.view, Float8)
    return form._replace(view=Smoothed(form.view), roles=(*form.roles, "inputs"))


def _bytes(module: StoredModule) -> QuantizedForm | None:
    """U8: NVFP4, MXFP4 or two rows of INT4 a byte, as the scales tell."""
    scale, head = module.get("scale"), module.head
    if module.config.method is None and (module.get("whole") is None or scale is None or scale.dtype != FLOAT8):
        return None  # only NVFP4 cannot be anything else
    if scale is None or len(head.shape) < 2:
        if module.get("whole") is not None:
            module.need("scale", "weight_scale")
        return None
    whole = module.get("whole")
    if scale.dtype == FLOAT8:
        whole = module.need("whole", "weight_scale_2")
        inputs = _pre(module, head.shape[-1] * 2)
        view = Nvfp4(len(head.shape), whole=len(whole.shape), negative_zero=False, inputs=inputs)
        return nvfp4(module, view, ("head", "scale", "whole", *(["inputs"] if inputs else [])))
    if scale.dtype in (np.uint8, E8M0):
        form = mxfp4.rows(module)
        if not _pre(module, form.shape[-1]):
            return form
        assert isinstance(form.view, mxfp4.MicroscaledRows)
        return form._replace(view=Smoothed(form.view), roles=(*form.roles, "inputs"))
    shape = (head.shape[0] * 2, head.shape[1])
    grid = Grid.fit(shape, tuple(scale.shape), (1, module.number("group_size", 128) or 128))
    if len(head.shape) != 2 or grid is None:
        module.misfit(wanted="a scale for each row, or for each group of it")
    inputs = _pre(module, shape[1])
    roles = ("head", "scale", *(["inputs"] if inputs else []))
    how = f"in groups of {grid.block[1]}"
    return QuantizedForm("int4", how, 4, shape, module.dtype("scale"), Int4Rows(grid, inputs), roles)


def _integers(module: StoredModule) -> QuantizedForm | None:
    scale = module.get("scale")
    if scale is None or len(module.head.shape) != 2 or module.config.method is None:
        return None
    shape = tuple(module.head.shape)
    grid = Grid.fit(shape, tuple(scale.shape))
    if grid is None or scale.dtype.itemsize == 1:
        module.misfit(wanted="a scale for each row")
    view: Chunked = Packed(None, grid, _FLOAT32)
    roles: tuple[str, ...] = ("head", "scale")
    if _pre(module, shape[1]):
        view, roles = Smoothed(view), (*roles, "inputs")
    return QuantizedForm("int8", described(grid, shape), 8, shape, module.dtype("scale"), view, roles)


_ROLES = {
    "scale": (".weight_scale",),
    "whole": (".weight_scale_2",),
    "inputs": (".pre_quant_scale", ".input_quantizer._pre_quant_scale"),
}
FORMAT = QuantizedFormat(
    stored=(
        StoredNames(".weight", CODES, ".weight", _ROLES, _floats, (".weight_scale", ".weight_scale_2")),
        StoredNames(".weight", dtypes(np.uint8), ".weight", _ROLES, _bytes),
        StoredNames(".weight", dtypes(np.int8), ".weight", _ROLES, _integers),
    ),
    beside=(".input_scale", ".output_scale"),
    skipped=("exclude_modules", "ignore"),
    alone=True,
)
