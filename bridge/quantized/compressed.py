"""compressed-tensors, as llm-compressor writes it: the config sorts modules into groups, each with its own format."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from bridge._text import quote
from bridge.quantized import mxfp4
from bridge.quantized.config import QuantizationConfig, integers, is_object, texts
from bridge.quantized.format import DAMAGED, MoreValues, QuantizedFormat, Settings, StoredModule, StoredNames, dtypes
from bridge.quantized.fp8 import CODES, float8
from bridge.quantized.grid import Grid
from bridge.quantized.logical import QuantizedForm
from bridge.quantized.nvfp4 import Nvfp4, nvfp4
from bridge.quantized.packed import Packed
from bridge.quantized.unpack import Packing
from bridge.quantized.view import Shape

_REFUSED = {
    "sparse-24-bitmask": "2:4 sparsity",
    "sparse-bitmask": "sparsity",
    "marlin-24": "Marlin with 2:4 sparsity",
    "mxfp6-pack-quantized": "MXFP6",
}
_INTEGERS = dtypes(np.int32)


def _check(config: QuantizationConfig) -> None:
    """Refuse what would be read wrongly."""
    fields = config.fields
    if fields.get("transform_config"):
        transforms = fields["transform_config"]
        if not is_object(transforms) or transforms.get("config_groups", True):
            config.refuse(
                "has a transform_config: the weights are rotated by Hadamard transforms, which are not undone"
            )
    sparsity = fields.get("sparsity_config")
    if is_object(sparsity) and sparsity.get("format", "dense") not in ("dense", None):
        config.refuse(f"has the sparsity_config {quote(str(sparsity['format']))}, whose weights are not read")
    groups = fields.get("config_groups")
    formats = [
        fields.get("format"),
        *(g.get("format") for g in (groups.values() if is_object(groups) else ()) if is_object(g)),
    ]
    for name in formats:
        if isinstance(name, str) and name in _REFUSED:
            config.refuse(f"says {quote(name)}: {_REFUSED[name]} is not read")


def _told(config: QuantizationConfig) -> Callable[[str], Settings]:
    """For a module the group that names it: exactly or by regex, else by class, else the only one there is."""
    stated = config.fields.get("config_groups")
    groups = [g for g in stated.values() if is_object(g)] if is_object(stated) else []
    made: list[Settings] = [_group(g, config.fields) for g in groups]
    exact: dict[str, Settings] = {}
    patterns: list[tuple[re.Pattern[str], Settings]] = []
    classes: list[Settings] = []
    for group, settings in zip(groups, made, strict=True):
        for target in texts(group.get("targets")):
            if target.startswith("re:"):
                patterns.append((config.regex(target[3:]), settings))
            else:
                exact.setdefault(target, settings)
                if "." not in target:
                    classes.append(settings)
    rest: Settings = (classes or made or [{}])[0]

    def told(module: str) -> Settings:
        found = exact.get(module)
        if found is None:
            found = next((settings for pattern, settings in patterns if pattern.match(module)), None)
        return rest if found is None else found

    return told


def _group(group: Mapping[str, Any], fields: Mapping[str, Any]) -> Settings:
    weights = group.get("weights")
    return {"format": group.get("format") or fields.get("format"), **(weights if is_object(weights) else {})}


def _block(module: StoredModule) -> Shape:
    """What the config says about blocks, whichever way the strategy puts it."""
    size = integers(module.settings.get("block_structure"))
    if size is not None and len(size) == 2:
        return size
    group = module.number("group_size")
    return (1, group) if group is not None and group > 0 else ()


def _packed(module: StoredModule) -> QuantizedForm | MoreValues | None:
    """Integers of 2 to 8 bits in words."""
    if module.config.method is None:
        module.refuse(
            "is packed by compressed-tensors, but no config says how",
            "Say how: quantized={'quant_method': 'compressed-tensors', 'format': 'pack-quantized', 'config_groups': "
            "{'group_0': {'targets': ['Linear'], 'weights': {'num_bits': 4, 'group_size': 128, 'symmetric': True}}}}",
        )
    bits, head, scale = module.number("num_bits"), module.head, module.need("scale", "weight_scale")
    if bits is None:
        module.refuse(
            "is packed, but no group of the config says in how many bits", "Name its num_bits in config_groups"
        )
    if not 2 <= bits <= 8 or len(head.shape) != 2:
        module.refuse(f"has codes of {bits} bits and {len(head.shape)} axes; 2 to 8 bits and 2 axes are read", _keep())
    columns = _columns(module, bits)
    if isinstance(columns, MoreValues):
        return columns
    shape = (head.shape[0], columns)
    dense, sparse = Packing(bits), Packing(bits, dense=False)
    fitting = [p for p in (dense, sparse) if p.words(columns) == head.shape[1]]
    if not fitting:
        module.refuse(
            f"has {head.shape[1]} words a row, expected {dense.words(columns)} for {columns} codes of {bits} bits",
            DAMAGED,
        )
    if len(fitting) == 2 and 32 % bits:
        module.refuse(
            f"has {columns} codes of {bits} bits a row, which both ways of packing store in as many words",
            _keep(),
        )
    packing = fitting[0]
    group = module.number("group_size")
    grid = Grid.fit(shape, tuple(scale.shape), (1, group) if group is not None and group > 0 else ())
    if grid is None or scale.dtype.itemsize == 1:
        module.misfit(wanted="a scale for each row, or for each group of it")
    permuted = _permuted(module, columns, grid.block[1])
    if isinstance(permuted, MoreValues):
        return permuted
    zeros = _packed_zeros(module, packing, shape, tuple(scale.shape))
    view = Packed(packing, grid, scale.dtype, zeros, columns if permuted else 0)
    roles = ("head", "scale", *(["zero"] if zeros else []), *(["order"] if permuted else []))
    how = "by channel" if grid.block[1] == columns else f"in groups of {grid.block[1]}"
    return QuantizedForm(f"int{bits}", how, bits, shape, module.dtype("scale"), view, roles)


def _keep() -> str:
    return "Take the stored tensors with quantized='keep'"


def _columns(module: StoredModule, bits: int) -> int | MoreValues:
    """How many codes a row has. Groups say it; else it stands in a tensor of two numbers, or in the words."""
    scale, group = module.specs["scale"], module.number("group_size")
    if group is not None and group > 0 and len(scale.shape) == 2 and module.settings.get("strategy") != "channel":
        return scale.shape[1] * group
    if module.get("shape") is None:
        if 32 % bits:
            module.need("shape", "weight_shape")
        return module.head.shape[1] * 32 // bits
    value = module.values.get("shape")
    if value is None:
        return MoreValues("shape")
    rows, columns = (int(n) for n in value.reshape(-1)[-2:]) if value.size >= 2 else (-1, -1)
    if rows != module.head.shape[0] or columns < 0:
        module.refuse(f"says {value.tolist()}, its codes have {module.head.shape[0]} rows", DAMAGED, role="shape")
    return columns


def _permuted(module: StoredModule, columns: int, group: int) -> bool | MoreValues:
    """Whether columns are in another order than that of their groups. Files that have not been settled hold −1."""
    order = module.get("order")
    if order is None:
        return False
    value = module.values.get("order")
    if value is None:
        return MoreValues("order")
    if tuple(order.shape) != (columns,):
        module.misfit("order")
    if (value < 0).any():
        return False
    if int(value.max(initial=0)) >= module.specs["scale"].shape[-1]:
        module.refuse("points beyond the last group", DAMAGED, role="order")
    return not np.array_equal(value, np.arange(columns) // group)


def _packed_zeros(module: StoredModule, packing: Packing, shape: Shape, scale: Shape) -> str | None:
    zero = module.get("zero")
    if zero is None:
        if module.settings.get("symmetric") is False:
            module.need("zero", "weight_zero_point")
        return None
    if zero.dtype == np.int8 and tuple(zero.shape) == scale:
        return "bytes"
    if zero.dtype != np.int32 or len(scale) != 2 or tuple(zero.shape) != (packing.words(shape[0]), *scale[1:]):
        module.misfit("zero", wanted=f"{packing.words(shape[0])} words for {shape[0]} rows")
    return "words"


def _integers(module: StoredModule) -> QuantizedForm | None:
    """Integers of 8 bits, a byte each."""
    if len(module.head.shape) != 2 or (module.config.method is None):
        return None
    scale, zero = module.get("scale"), module.get("zero")
    if scale is None:
        return None
    shape = tuple(module.head.shape)
    grid = Grid.fit(shape, tuple(scale.shape), _block(module))
    if grid is None or scale.dtype.itemsize == 1:
        module.misfit()
    if zero is not None and (zero.dtype != np.int8 or zero.shape != scale.shape):
        module.misfit("zero", wanted="a zero point for each scale")
    view = Packed(None, grid, scale.dtype, None if zero is None else "bytes")
    how = "by channel" if grid.block == (1, shape[1]) else f"in blocks of {grid.block[0]} x {grid.block[1]}"
    return QuantizedForm(
        "int8", how, 8, shape, module.dtype("scale"), view, ("head", "scale", *(["zero"] if zero else []))
    )


def _floats(module: StoredModule) -> QuantizedForm | None:
    """Floats of 8 bits; with exponents for scales it is MXFP8."""
    if len(module.head.shape) < 2 or (module.config.method is None):
        return None
    return float8(module, scale="weight_scale", block=_block(module), rounds=True)


def _fours(module: StoredModule) -> QuantizedForm:
    """Floats of 4 bits: NVFP4 has a scale of the whole, MXFP4 has none."""
    whole = module.get("whole")
    scale = module.need("scale", "weight_scale")
    if whole is None and scale.dtype.itemsize == 1 and scale.dtype not in CODES:
        return mxfp4.rows(module)
    whole = module.need("whole", "weight_global_scale")
    return nvfp4(
        module, Nvfp4(len(module.head.shape), divides=True, whole=len(whole.shape)), ("head", "scale", "whole")
    )


_PACKED = {
    "scale": (".weight_scale",),
    "whole": (".weight_global_scale",),
    "shape": (".weight_shape",),
    "zero": (".weight_zero_point",),
    "order": (".weight_g_idx",),
}
_PLAIN = {"scale": (".weight_scale",), "zero": (".weight_zero_point",)}
_TELLING = (
    ".weight_packed",
    ".weight_scale",
    ".weight_zero_point",
    ".weight_global_scale",
    ".weight_shape",
    ".weight_g_idx",
)
FORMAT = QuantizedFormat(
    stored=(
        StoredNames(".weight_packed", _INTEGERS, ".weight", _PACKED, _packed, _TELLING),
        StoredNames(".weight_packed", dtypes(np.uint8), ".weight", _PACKED, _fours),
        StoredNames(".weight", CODES, ".weight", _PLAIN, _floats),
        StoredNames(".weight", dtypes(np.int8), ".weight", _PLAIN, _integers),
    ),
    told=_told,
    check=_check,
    beside=(".input_scale", ".input_zero_point", ".input_global_scale", ".output_scale", ".output_zero_point"),
    skipped=("ignore",),
    alone=True,
)
