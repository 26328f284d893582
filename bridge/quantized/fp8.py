"""Floats of 8 bits with scales: of blocks, of groups, of channels, of the whole tensor.

`quant_method` "fp8" (DeepSeek, Qwen, Mistral), "fbgemm_fp8", and "mxfp8" with its experts in 4 bits. The scale is
multiplied, although some call it `inv`. The judges are transformers, and compressed-tensors where a block is cut short.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import ml_dtypes
import numpy as np

from bridge.quantized import mxfp4
from bridge.quantized.config import integers
from bridge.quantized.floats import E8M0, FLOAT8, has_nan, look_up, scales, shrunk, table
from bridge.quantized.format import QuantizedFormat, StoredModule, StoredNames, dtypes
from bridge.quantized.grid import Grid, spread
from bridge.quantized.logical import QuantizedForm
from bridge.quantized.rounding import Range, finish
from bridge.quantized.view import Array, Box, Chunked, Scratch, Shape

CODES = dtypes(ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2)
_SCALES = dtypes(np.float32, np.float16, ml_dtypes.bfloat16, E8M0, np.uint8)
_SHRUNK = np.float32(2.0**120)
_USUAL = 128
_LARGEST_CODE = 448
_LARGEST = 128.0  # a scale that 2¹²⁰ can still be multiplied by


@dataclass(frozen=True, slots=True)
class Float8(Chunked):
    """Codes times scales: `v = float32(code) * float32(scale)`.

    - `grid`: which scale is whose.
    - `through`: the dtype that each product is rounded to, where the reference computes in the dtype of the scales.
    """

    grid: Grid
    through: np.dtype | None = None

    @property
    def grain(self) -> Shape:
        return tuple(1 if axis not in self.grid.axes else block for axis, block in enumerate(self.grid.block))

    def boxes(self, box: Box) -> Sequence[Box]:
        return box, self.grid.box(box)

    def chunk(self, box: Box, parts: Sequence[Array], out: Array, scratch: Scratch) -> None:
        stored, factors = parts[0], scales(self.grid.matrix(parts[1]))
        shape = stored.shape[-2:]
        codes, out = stored.view(np.uint8).reshape(shape), out.reshape(shape)
        values = out if out.dtype == np.float32 and out.flags.c_contiguous else scratch.take("v", shape, np.float32)
        with np.errstate(all="ignore"):
            largest = float(np.abs(factors).max())
            if stored.dtype == FLOAT8 and largest < _LARGEST and not has_nan(codes, scratch):
                shrunk(codes, values)
                factors *= _SHRUNK
            else:
                look_up(table(stored.dtype), codes, values)
            spread(factors, box, self.grid.block, np.multiply, values)
        within = Range(_LARGEST_CODE * largest) if stored.dtype == FLOAT8 else Range()
        finish(values, out, scratch, through=self.through, within=within)


def described(grid: Grid, shape: Shape) -> str:
    """What the blocks of a grid are, for people."""
    rows, columns = grid.block[-2:]
    if columns == shape[-1]:
        if rows == 1 and shape[-2] > 1:
            return "by channel"
        if rows == shape[-2]:
            return "with one scale" if len(shape) == 2 or 0 not in grid.axes else "with one scale a matrix"
    return f"in groups of {columns}" if rows == 1 else f"in blocks of {rows} x {columns}"


def float8(
    module: StoredModule, *, scale: str, block: Shape = (), rounds: bool = False, name: str = "fp8"
) -> QuantizedForm:
    """The form of a tensor of codes of 8 bits and one of scales.

    **Arguments:**

    - `module`: what belongs together.
    - `scale`: what the scales are called, for a message where there are none.
    - `block`: what the config says.
    - `rounds`: whether products are rounded to the dtype of the scales.
    """
    shape, factors = tuple(module.head.shape), module.need("scale", scale)
    if factors.dtype not in _SCALES:
        module.refuse(
            f"holds scales in {factors.dtype}, which no known tool writes",
            "Take the stored tensors with quantized='keep'",
            role="scale",
        )
    grid = Grid.fit(shape, tuple(factors.shape), block or _usual(module))
    if grid is None:
        if len(block) == 2:
            module.misfit(wanted=f"blocks of {block[0]} x {block[1]} make another grid")
        module.misfit(
            wanted="no block divides it",
            advice="Give the block: quantized={'quant_method': 'fp8', 'weight_block_size': [128, 128]}",
        )
    through = factors.dtype if rounds and factors.dtype.itemsize == 2 else None
    return QuantizedForm(
        name, described(grid, shape), 8, shape, module.dtype("scale"), Float8(grid, through), ("head", "scale")
    )


def _block(module: StoredModule) -> Shape:
    said = module.settings.get("weight_block_size") or module.settings.get("block_size")
    if said is None:
        return (1, 32) if module.config.method == "mxfp8" else ()
    size = (1, said) if isinstance(said, int) else integers(said)
    if size is None or len(size) != 2:
        module.refuse(
            f"is quantised as the config says, but its weight_block_size is {said!r}",
            "Give two numbers: quantized={'quant_method': 'fp8', 'weight_block_size': [128, 128]}",
        )
    return size


def _usual(module: StoredModule) -> Shape:
    """The block that every known tool writes, where the scales fit it. Sizes alone may fit others too: two scales for
    136 rows are not blocks of 68.
    """
    factors = module.get("scale")
    wanted = tuple(-(-n // _USUAL) for n in module.head.shape[-2:])
    fits = factors is not None and max(wanted) > 1 and tuple(factors.shape[-2:]) == wanted
    return (_USUAL, _USUAL) if fits else ()


def _build(module: StoredModule) -> QuantizedForm | None:
    if len(module.head.shape) < 2:
        return None
    if module.get("scale") is None and module.config.method is None:
        return None  # a plain tensor of eight bits
    # Without a config: of those that say `weight_scale`, only compressed-tensors keeps 16 bits, and rounds to them.
    rounds = module.config.method is None and module.keys["scale"].endswith("weight_scale")
    return float8(module, scale="weight_scale_inv", block=_block(module), rounds=rounds)


def _build_parameter(module: StoredModule) -> QuantizedForm | None:
    """A parameter that is not called `weight`, such as fused experts."""
    return _build(module) if module.get("scale") is not None else None


def _build_fp4(module: StoredModule) -> QuantizedForm | None:
    """Experts in 4 bits beside the 8 of the rest: only the scales tell them from plain integers."""
    factors = module.get("scale")
    known = (E8M0,) if module.config.method is None else (E8M0, np.dtype(np.uint8))
    return mxfp4.rows(module) if factors is not None and factors.dtype in known else None


_WEIGHT_SCALES = (".weight_scale_inv", ".weight_scale", ".scale", ".qscale_weight")
FORMAT = QuantizedFormat(
    stored=(
        StoredNames(
            head=".weight",
            dtypes=CODES,
            logical=".weight",
            roles={"scale": _WEIGHT_SCALES},
            build=_build,
            telling=(".weight_scale_inv", ".qscale_weight"),
        ),
        StoredNames(
            head="", dtypes=CODES, logical="", roles={"scale": ("_scale_inv", "_scale")}, build=_build_parameter
        ),
        StoredNames(
            head=".weight",
            dtypes=dtypes(np.int8),
            logical=".weight",
            roles={"scale": (".scale", ".weight_scale_inv", ".weight_scale")},
            build=_build_fp4,
        ),
    ),
    beside=(".input_scale", ".activation_scale", ".output_scale", ".qscale_act", ".input_scale_ub"),
    alone=True,
)
