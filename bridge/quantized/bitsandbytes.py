"""bitsandbytes: 4 bits in blocks of the flattened weight, and LLM.int8's rows of 8 bits.

The shape of a 4-bit weight stands nowhere but in a tensor that holds JSON. The judge is its own default kernel.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import gcd, prod
from typing import Any

import numpy as np

from bridge.quantized.config import integers, is_object
from bridge.quantized.floats import look_up, pairs
from bridge.quantized.format import DAMAGED, MoreValues, QuantizedFormat, StoredModule, StoredNames, dtypes
from bridge.quantized.grid import spread
from bridge.quantized.logical import QuantizedForm
from bridge.quantized.rounding import finish
from bridge.quantized.view import Array, Box, Chunked, Scratch, Shape, covering, rows_tile

_INT8_STEP = np.float32(7.874015718698502e-3)  # the kernel multiplies by this; dividing by 127 differs
_MAPS = {"nf4": "nf4", "fp4": "fp4"}


@dataclass(frozen=True, slots=True)
class DoubleQuantization:
    """How the largest values of the blocks are themselves stored in 8 bits: `map[code] · absmax + offset`."""

    block: int
    offset: float


@dataclass(frozen=True, slots=True)
class Flat4(Chunked):
    """`v = map[code] · absmax` of its block, in float32. Blocks run over the flattened weight, across rows.

    - `shape`: of the weight.
    - `block`: elements that share an `absmax`.
    - `width`: bytes of one stored element of the codes.
    - `nested`: how `absmax` is stored; `None` for float32.
    """

    shape: Shape
    block: int
    width: int
    stored_rank: int
    nested: DoubleQuantization | None = None

    @property
    def grain(self) -> Shape:
        """Whole rows, as many as end with a block."""
        row = prod(self.shape[1:])
        whole = max(self.block, 2 * self.width)
        return (whole // gcd(row, whole) if row else 1, *(max(n, 1) for n in self.shape[1:]))

    def _flat(self, box: Box) -> range:
        """From the first element of a box to its last."""
        start, last, step = 0, 0, 1
        for span, extent in zip(reversed(box), reversed(self.shape), strict=True):
            if not span:
                return range(0)
            start, last, step = start + span.start * step, last + (span.stop - 1) * step, step * extent
        return range(start, last + 1)

    def boxes(self, box: Box) -> Sequence[Box]:
        flat = self._flat(box)
        blocks = covering(flat, self.block)
        codes = (covering(flat, 2 * self.width), *(range(1) for _ in range(self.stored_rank - 1)))
        found: list[Box] = [codes, (blocks,), (range(16),)]
        if self.nested is not None:
            found += [(covering(blocks, self.nested.block),), (range(256),)]
        return found

    def tile(self, box: Box) -> Shape:
        return rows_tile(box, columns=prod(self.shape[1:]))

    def chunk(self, box: Box, parts: Sequence[Array], out: Array, scratch: Scratch) -> None:
        flat = self._flat(box)
        stored = np.ascontiguousarray(parts[0]).view(np.uint8).reshape(-1)
        first = flat.start // (2 * self.width) * 2 * self.width
        stored = stored[: -(-(flat.stop - first) // 2)]
        both = scratch.take("both", stored.shape, np.uint64)
        look_up(pairs(parts[2].astype(np.float32), high_first=True), stored, both)
        values = both.view(np.float32)[flat.start - first : flat.stop - first]
        with np.errstate(all="ignore"):
            spread(self._largest(flat, parts)[None], (range(1), flat), (1, self.block), np.multiply, values[None])
        rows, columns = out.shape[-2:] if out.ndim > 1 else (1, out.shape[-1])
        # The rows of the box, with what lies between them left out.
        cut = np.lib.stride_tricks.as_strided(values, (rows, columns), (self.shape[-1] * 4, 4), writeable=True)
        finish(cut, out.reshape(rows, columns), scratch)

    def _largest(self, flat: range, parts: Sequence[Array]) -> Array:
        """The `absmax` of each block, float32."""
        if self.nested is None:
            return parts[1].astype(np.float32)
        blocks = covering(flat, self.block)
        largest = np.take(parts[4].astype(np.float32), parts[1].view(np.uint8))
        first = blocks.start // self.nested.block
        outer = parts[3].astype(np.float32)[np.arange(blocks.start, blocks.stop) // self.nested.block - first]
        return largest * outer + np.float32(self.nested.offset)


@dataclass(frozen=True, slots=True)
class Int8(Chunked):
    """`v = (code · SCB) · 1/127`, in that order, in float32."""

    @property
    def grain(self) -> Shape:
        return 1, 1

    def boxes(self, box: Box) -> Sequence[Box]:
        return box, (box[0],)

    def chunk(self, box: Box, parts: Sequence[Array], out: Array, scratch: Scratch) -> None:
        values = out if out.dtype == np.float32 and out.flags.c_contiguous else scratch.take("v", out.shape, np.float32)
        with np.errstate(all="ignore"):
            np.multiply(parts[0], parts[1].astype(np.float32)[:, None], out=values)
            np.multiply(values, _INT8_STEP, out=values)
        finish(values, out, scratch)


def _state(module: StoredModule) -> Mapping[str, Any] | MoreValues:
    """The JSON beside the codes."""
    value = module.values.get("state")
    if value is None:
        return MoreValues("state")
    try:
        state = json.loads(value.tobytes())
    except (ValueError, RecursionError):
        state = None
    if not is_object(state):
        module.refuse("holds no JSON object", DAMAGED, role="state")
    return state


def _shape(module: StoredModule, state: Mapping[str, Any]) -> Shape:
    shape = integers(state.get("shape"))
    if not shape:
        module.refuse(f"says the shape {state.get('shape')!r}", DAMAGED, role="state")
    return shape


def _count(module: StoredModule, state: Mapping[str, Any], name: str) -> int:
    value = state.get(name)
    if type(value) is not int or value < 1:
        module.refuse(f"says the {name} {value!r}", DAMAGED, role="state")
    return value


def _build4(module: StoredModule) -> QuantizedForm | MoreValues | None:
    if module.get("state") is None:
        if module.get("absmax") is not None and module.get("map") is not None:
            module.need("state", "weight.quant_state.bitsandbytes__nf4")
        return None  # a plain tensor of bytes
    largest, _ = module.need("absmax", "weight.absmax"), module.need("map", "weight.quant_map")
    state = _state(module)
    if isinstance(state, MoreValues):
        return state
    kind = state.get("quant_type")
    if kind not in _MAPS:
        module.refuse(f"says the quant_type {kind!r}; nf4 and fp4 are read", "Use quantized='keep'", role="state")
    shape, block, head = _shape(module, state), _count(module, state, "blocksize"), module.head
    width, count = head.dtype.itemsize, prod(shape)
    if prod(head.shape) != -(-count // (2 * width)) or any(n != 1 for n in head.shape[1:]):
        module.misfit("state", wanted=f"its shape is {shape}")
    nested = None
    if module.get("nested") is not None or largest.dtype == np.uint8:
        offset = state.get("nested_offset")
        if not isinstance(offset, int | float) or not abs(offset) < 1e300:
            module.refuse(f"says the nested_offset {offset!r}", DAMAGED, role="state")
        nested = DoubleQuantization(_count(module, state, "nested_blocksize"), float(offset))
        outer, _ = module.need("nested", "weight.nested_absmax"), module.need("nested_map", "weight.nested_quant_map")
        if prod(outer.shape) != -(-prod(largest.shape) // nested.block):
            module.misfit("nested", wanted=f"blocks of {nested.block}")
    if tuple(largest.shape) != (-(-count // block),) or module.specs["map"].shape != (16,):
        module.misfit("absmax", wanted=f"blocks of {block}")
    dtype = module.config.dtype or {"bfloat16": None, "float16": np.dtype(np.float16)}.get(str(state.get("dtype")))
    roles = ("head", "absmax", "map", *(("nested", "nested_map") if nested is not None else ()))
    view = Flat4(shape, block, width, len(head.shape), nested)
    how = f"in blocks of {block}" + (", their scales in 8 bits" if nested is not None else "")
    return QuantizedForm(str(kind), how, 4, shape, dtype or module.dtype(), view, roles)


def _build8(module: StoredModule) -> QuantizedForm | None:
    scale = module.get("scale")
    if scale is None or len(module.head.shape) != 2:
        return None
    if prod(scale.shape) != module.head.shape[0] or len(scale.shape) != 1:
        module.misfit(wanted="one number a row")
    return QuantizedForm("int8", "by channel", 8, tuple(module.head.shape), module.dtype(), Int8(), ("head", "scale"))


_STORED = dtypes(np.uint8, np.int8, np.float16, np.float32, "bfloat16", np.int16, np.int32)
FORMAT = QuantizedFormat(
    stored=(
        StoredNames(
            head=".weight",
            dtypes=_STORED,
            logical=".weight",
            roles={
                "state": (".weight.quant_state.bitsandbytes__nf4", ".weight.quant_state.bitsandbytes__fp4"),
                "absmax": (".weight.absmax",),
                "map": (".weight.quant_map",),
                "nested": (".weight.nested_absmax",),
                "nested_map": (".weight.nested_quant_map",),
            },
            build=_build4,
            telling=(
                ".weight.absmax",
                ".weight.quant_map",
                ".quant_state.bitsandbytes__nf4",
                ".quant_state.bitsandbytes__fp4",
            ),
        ),
        StoredNames(
            head=".weight",
            dtypes=dtypes(np.int8),
            logical=".weight",
            roles={"scale": (".SCB",)},
            build=_build8,
            telling=(".SCB",),
        ),
    ),
    beside=(".weight_format",),
    skipped=("llm_int8_skip_modules",),
    alone=True,
)
