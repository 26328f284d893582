"""The table of formats, by the name that a config gives them. A new one is a file with a `FORMAT`, and a line here."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from bridge.quantized import awq, bitsandbytes, compressed, fp8, gptq, mlx, modelopt, mxfp4
from bridge.quantized.format import QuantizedFormat

# Where there is no config, those that are `alone` are asked in this order, and the first takes a tensor.
FORMATS: Mapping[str, QuantizedFormat] = MappingProxyType(
    {
        "bitsandbytes": bitsandbytes.FORMAT,
        "mxfp4": mxfp4.FORMAT,
        "modelopt": modelopt.FORMAT,
        "modelopt_fp4": modelopt.FORMAT,
        "fp8": fp8.FORMAT,
        "mxfp8": fp8.FORMAT,
        "fbgemm_fp8": fp8.FORMAT,
        "compressed-tensors": compressed.FORMAT,
        "gptq": gptq.FORMAT,
        "awq": awq.FORMAT,
        "mlx": mlx.FORMAT,
        "metal": mlx.FORMAT,
    }
)
