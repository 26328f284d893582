"""The references' own ways: each weight dequantised whole by the package that wrote it, then stacked, then dlpack."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bench.peers import stacked
from bench.peers_torch import to_jax
from bench.work import Work

Run = Callable[[], Any]
Tensors = dict[str, Any]


def _dequantised(work: Work, of: Callable[[Tensors, str], Any]) -> Run:
    import torch
    from safetensors.torch import load_file

    def run() -> dict[str, Any]:
        stored: Tensors = {}
        for path in work.paths:
            stored |= load_file(path)
        made = {key: of(stored, key) for key in work.places}
        return to_jax(stacked(work, made, torch.stack))

    return run


def fp8(work: Work) -> Run:
    """`Fp8Dequantize` of transformers, which `dequantize=True` runs."""
    import torch
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize

    ours = Fp8Dequantize(None)
    return _dequantised(
        work, lambda stored, key: ours._dequantize_one(stored[key], stored[f"{key}_scale_inv"], torch.bfloat16)
    )


def int4(work: Work) -> Run:
    """`decompress` of compressed-tensors, module by module."""
    import json

    from compressed_tensors.compressors.base import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    said = json.loads((work.folder / "config.json").read_text())["quantization_config"]
    scheme = QuantizationScheme(
        targets=["Linear"], weights=QuantizationArgs(**said["config_groups"]["group_0"]["weights"])
    )
    compressor = BaseCompressor.get_value_from_registry("pack-quantized")

    def of(stored: Tensors, key: str) -> Any:
        parts = {part: stored[f"{key}_{part}"] for part in ("packed", "scale", "shape")}
        return compressor.decompress({f"weight_{part}": tensor for part, tensor in parts.items()}, scheme)["weight"]

    return _dequantised(work, of)


def mxfp4(work: Work) -> Run:
    """`convert_moe_packed_tensors` of transformers, which `dequantize=True` runs."""
    import torch
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    return _dequantised(
        work,
        lambda stored, key: convert_moe_packed_tensors(
            stored[f"{key}_blocks"], stored[f"{key}_scales"], dtype=torch.bfloat16
        ),
    )


def nf4(work: Work) -> Run:
    """`dequantize_4bit` of bitsandbytes."""
    from bitsandbytes.functional import QuantState, dequantize_4bit

    def of(stored: Tensors, key: str) -> Any:
        parts = {name.removeprefix(f"{key}."): stored[name] for name in stored if name.startswith(f"{key}.")}
        return dequantize_4bit(stored[key], QuantState.from_dict(parts, "cpu"))

    return _dequantised(work, of)
