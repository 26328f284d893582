"""GPTQ: words run down the columns of a matrix that is stored `(in, out)`.

Turned around, which moves an eighth of the elements, a box of it is as compressed-tensors packs: codes in a row along
`in`. The judge is GPTQModel's formula, which rounds to the dtype of the scales.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import lcm
from typing import Any

import numpy as np

from bridge._errors import CheckpointError
from bridge._text import quote
from bridge.quantized.affine import TILE, Scales, affine
from bridge.quantized.config import QuantizationConfig, is_object
from bridge.quantized.format import DAMAGED, MoreValues, QuantizedFormat, Settings, StoredModule, StoredNames, dtypes
from bridge.quantized.logical import QuantizedForm
from bridge.quantized.unpack import Packing, turned
from bridge.quantized.view import Array, Box, Chunked, Scratch, Shape, covering

_CARRIES = {2: 0x55555555, 4: 0x11111111, 8: 0x01010101}
_BITS = (2, 3, 4, 8)


@dataclass(frozen=True, slots=True)
class Gptq(Chunked):
    """`v = scale[g] · (code − zero[g])`, in the dtype of the scales, transposed.

    - `bits`: of a code.
    - `group`: how many columns share a scale.
    - `through`: the dtype of the scales.
    - `columns`: how many there are, all in all.
    - `subtracted`: whether zero points are stored less one.
    - `symmetric`: whether the config says that all are 2^(bits − 1): stored either way, or not at all.
    - `stored`: whether there are zero points.
    - `order`: whether there is a part that says which group is a column's own.
    - `permuted`: whether it may name any group; else one that a box has anyway.
    """

    bits: int
    group: int
    through: np.dtype
    columns: int
    subtracted: bool
    symmetric: bool
    stored: bool = True
    order: bool = False
    permuted: bool = False

    @property
    def packing(self) -> Packing:
        """Of the codes, and of the zero points."""
        return Packing(self.bits)

    @property
    def grain(self) -> Shape:
        codes, _ = self.packing.period
        return codes if self.stored else 1, codes if self.permuted else lcm(codes, self.group)

    def boxes(self, box: Box) -> Sequence[Box]:
        rows, columns = box
        groups = covering(range(self.columns) if self.permuted else columns, self.group)
        found: list[Box] = [(self.packing.behind(columns), rows), (groups, rows)]
        if self.stored:
            found.append((groups, self.packing.behind(rows)))
        if self.order:
            found.append((columns,))
        return found

    def tile(self, box: Box) -> Shape:
        return TILE

    def chunk(self, box: Box, parts: Sequence[Array], out: Array, scratch: Scratch) -> None:
        words = turned(parts[0], scratch)
        codes = self.packing.unpack(words, box[1], scratch)
        factors = np.ascontiguousarray(parts[1].T).astype(np.float32)
        zeros = self._zeros(parts[2], box[0], scratch) if self.stored else 1 << self.bits - 1
        groups = self._groups(parts[-1], box[1]) if self.order else None
        by = Scales(self.bits, box, (1, self.group), zeros, factors, groups)
        affine(codes, out, scratch, by, through=self.through)

    def _zeros(self, words: Array, rows: range, scratch: Scratch) -> Array | int:
        """Zero points, shape `(rows, groups)`."""
        raw = np.ascontiguousarray(words).view(np.uint32)
        middle = 1 << self.bits - 1
        if self.symmetric:
            if self.bits in _CARRIES and (raw == np.uint32(_CARRIES[self.bits] * middle)).all():
                return middle
            fields = self.packing.unpack(raw, rows, scratch, "zeros")
            if not ((fields == middle).all() or (fields == middle - 1).all()):
                raise CheckpointError(
                    "a weight",
                    f"has zero points other than {middle}, which contradict the config's sym: true",
                    "Say quantized={'quant_method': 'gptq', 'sym': False, …} with its checkpoint_format",
                )
            return middle
        if self.subtracted and self.bits in _CARRIES:
            raw = raw + np.uint32(_CARRIES[self.bits])  # carries undo the borrows of whoever subtracted it
        fields = self.packing.unpack(raw, rows, scratch, "zeros")
        if self.subtracted and self.bits not in _CARRIES:
            fields = (fields + np.uint8(1)) & np.uint8((1 << self.bits) - 1)
        return np.ascontiguousarray(fields.T).astype(np.float32)

    def _groups(self, order: Array, columns: range) -> Array | None:
        """Of each column the group's place among those that are here; `None` where they follow one another."""
        plain = np.arange(columns.start, columns.stop) // self.group
        if not self.permuted:
            if not np.array_equal(order, plain):
                raise CheckpointError(
                    "a weight",
                    "has a g_idx that does not count up, although the config's desc_act is not true",
                    "Say quantized={'quant_method': 'gptq', 'desc_act': True, …}",
                )
            return None
        last = -(-self.columns // self.group)
        if order.size and not 0 <= order.min() <= order.max() < last:
            raise CheckpointError("a weight", f"has a g_idx that points beyond its {last} groups", DAMAGED)
        return order


def _check(config: QuantizationConfig) -> None:
    """Refuse layouts that other kernels have."""
    fields = config.fields
    for name in ("checkpoint_format", "format"):
        layout = fields.get(name)
        if layout is not None and str(layout).lower() not in ("gptq", "gptq_v2"):
            config.refuse(f"says {name} {quote(str(layout))}, which is not read; 'gptq' and 'gptq_v2' are")
    if fields.get("is_marlin_format"):
        config.refuse("says is_marlin_format: weights in Marlin's layout are not read")


def _told(config: QuantizationConfig) -> Callable[[str], Settings]:
    """`dynamic`: regexes of modules with other bits or groups; the first that matches."""
    dynamic = config.fields.get("dynamic")
    if not is_object(dynamic) or not dynamic:
        return lambda module: config.fields
    rules: list[tuple[re.Pattern[str], Settings]] = []
    for pattern, overrides in dynamic.items():
        settings = {**config.fields, **overrides} if is_object(overrides) else config.fields
        rules.append((config.regex(re.sub(r"^(?:\+:|-:)", "", pattern)), settings))

    def told(module: str) -> Settings:
        return next((settings for pattern, settings in rules if pattern.match(module)), config.fields)

    return told


def _build(module: StoredModule) -> QuantizedForm | MoreValues | None:
    head, scale, zero = module.head, module.get("scale"), module.get("zero")
    if module.config.method is None:
        if scale is None or zero is None or len(head.shape) != 2:
            return None
        _ask(module, scale)
    scale = module.need("scale", "scales")
    bits = module.number("bits", 4)
    if bits not in _BITS or len(head.shape) != 2 or len(scale.shape) != 2:
        module.refuse(
            f"has codes of {bits} bits and {len(head.shape)} axes; 2, 3, 4 and 8 bits and 2 axes are read",
            "Take the stored tensors with quantized='keep'",
        )
    columns, rows = head.shape[0] * 32 // bits, head.shape[1]
    group = module.number("group_size", -1)
    group = max(columns, 1) if group is None or group <= 0 else group
    groups = -(-columns // group)
    if tuple(scale.shape) != (groups, rows) or scale.dtype.itemsize == 1 or head.shape[0] * 32 % bits:
        module.misfit(wanted=f"{columns} columns of {bits} bits in groups of {group} take ({groups}, {rows})")
    symmetric = module.settings.get("sym") is True
    if zero is None and not symmetric:
        module.need("zero", "qzeros")
    if zero is not None and (tuple(zero.shape) != (groups, -(-rows * bits // 32)) or zero.dtype != np.int32):
        module.misfit("zero", wanted=f"{groups} groups of {rows} zero points in {bits} bits")
    permuted = _permuted(module, columns, group)
    if isinstance(permuted, MoreValues):
        return permuted
    order = module.get("order") is not None
    layout = module.settings.get("checkpoint_format") or module.settings.get("format") or "gptq"
    view = Gptq(
        bits=bits,
        group=group,
        through=scale.dtype,
        columns=columns,
        subtracted=str(layout).lower() == "gptq",
        symmetric=symmetric,
        stored=zero is not None,
        order=order,
        permuted=permuted,
    )
    roles = ("head", "scale", *(["zero"] if zero is not None else []), *(["order"] if order else []))
    how = f"in groups of {group}" + (", in the order of a g_idx" if permuted else "")
    return QuantizedForm(f"gptq int{bits}", how, bits, (rows, columns), module.dtype("scale"), view, roles)


def _permuted(module: StoredModule, columns: int, group: int) -> bool | MoreValues:
    """Whether columns are in another order than that of their groups. One module speaks for all that are like it."""
    order = module.get("order")
    if order is None:
        return False
    if tuple(order.shape) != (columns,) or order.dtype != np.int32:
        module.misfit("order")
    if module.settings.get("desc_act") is True:
        return True
    value = module.values.get("order")
    if value is None:
        return MoreValues("order", each=False)
    return not np.array_equal(value, np.arange(columns) // group)


def _ask(module: StoredModule, scale: Any) -> None:
    """Shapes tell GPTQ from AWQ, and the bits, but neither the version nor whether zero points are all the same."""
    head, zero = module.head, module.specs["zero"]
    if len(zero.shape) != 2 or len(scale.shape) != 2 or not scale.shape[1] or not scale.shape[0]:
        module.refuse("is quantised, but no config says how", "Say how with quantized={'quant_method': …}")
    said: Mapping[str, Any]
    if head.shape[1] == scale.shape[1]:
        bits = 32 * zero.shape[1] // scale.shape[1]
        group = head.shape[0] * 32 // max(bits, 1) // scale.shape[0]
        said = {"quant_method": "gptq", "bits": bits, "group_size": group, "sym": True, "checkpoint_format": "gptq"}
    else:
        said = {"quant_method": "awq", "bits": 4, "group_size": head.shape[0] // scale.shape[0], "version": "gemm"}
    module.refuse("is quantised, but no config says how", f"Say how; its shapes suggest quantized={said}")


FORMAT = QuantizedFormat(
    stored=(
        StoredNames(
            head=".qweight",
            dtypes=dtypes(np.int32),
            logical=".weight",
            roles={"scale": (".scales",), "zero": (".qzeros",), "order": (".g_idx",)},
            build=_build,
            telling=(".qweight", ".qzeros", ".g_idx", ".scales"),
        ),
    ),
    told=_told,
    check=_check,
    skipped=("modules_in_block_to_quantize_skipped", "modules_to_not_convert"),
    alone=True,
)
