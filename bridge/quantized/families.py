"""The table of formats, by the name that a config gives them. A new one is a file with a `FAMILY`, and a line here."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from bridge.quantized import awq, bitsandbytes, compressed, fp8, gptq, mlx, modelopt, mxfp4
from bridge.quantized.family import Family

# Where there is no config, those that are `alone` are asked in this order, and the first takes a tensor.
FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "bitsandbytes": bitsandbytes.FAMILY,
        "mxfp4": mxfp4.FAMILY,
        "modelopt": modelopt.FAMILY,
        "modelopt_fp4": modelopt.FAMILY,
        "fp8": fp8.FAMILY,
        "mxfp8": fp8.FAMILY,
        "fbgemm_fp8": fp8.FAMILY,
        "compressed-tensors": compressed.FAMILY,
        "gptq": gptq.FAMILY,
        "awq": awq.FAMILY,
        "mlx": mlx.FAMILY,
        "metal": mlx.FAMILY,
    }
)
