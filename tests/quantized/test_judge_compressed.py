"""compressed-tensors writes and reads what we read."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests.quantized.judge import agree, to_numpy, to_torch
from tests.quantized.plain import BF16, wild
from tests.quantized.stored import assert_same, found_in, read

pytestmark = pytest.mark.torch


def compressed(
    weights: dict[str, Any], format: str, weight: np.ndarray, scale: np.ndarray, zero: Any = None, **more: np.ndarray
) -> None:
    """It compresses a random weight, and what it decompresses that to is what we read."""
    from compressed_tensors.compressors.base import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    scheme = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(**weights))
    compressor = BaseCompressor.get_value_from_registry(format)
    state = {"weight": to_torch(weight), "weight_scale": to_torch(scale), **{k: to_torch(v) for k, v in more.items()}}
    if zero is not None:
        state["weight_zero_point"] = to_torch(zero)
    state = compressor.compress(state, scheme)
    tensors = {f"m.{key}": to_numpy(value) for key, value in state.items()}
    expected = to_numpy(compressor.decompress(state, scheme)["weight"])
    group = {"targets": ["Linear"], "weights": scheme.weights.model_dump(mode="json")}
    said = {"quant_method": "compressed-tensors", "format": format, "config_groups": {"group_0": group}}
    agree(tensors, {"quantization_config": said}, expected)
    if expected.dtype.itemsize == 2:  # what it rounded to 16 bits it means
        tensor = found_in(tensors, {"quantization_config": said}).tensors["m.weight"]
        if "mx" not in format and "nv" not in format:
            assert_same(read(tensor, tensors), expected.astype(np.float32))


@pytest.mark.parametrize("dtype", [BF16, np.float16, np.float32], ids=["bf16", "f16", "f32"])
@pytest.mark.parametrize("symmetric", [True, False], ids=["symmetric", "zeros"])
@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("strategy", ["group", "channel"])
def test_compressed_tensors_packed(bits: int, symmetric: bool, strategy: str, dtype: Any):
    rng = np.random.default_rng(bits)
    columns = 32 * 7 if strategy == "group" else 203
    scale = (rng.random((37, 7 if strategy == "group" else 1)) * 0.02 + 1e-3).astype(np.float32).astype(dtype)
    zero = None if symmetric else rng.integers(-(1 << bits - 1), 1 << bits - 1, scale.shape).astype(np.int8)
    weights: dict[str, Any] = {"num_bits": bits, "type": "int", "symmetric": symmetric, "strategy": strategy}
    weights |= {"group_size": 32} if strategy == "group" else {}
    weight = (rng.standard_normal((37, columns)) * 0.02 * (1 << bits - 2)).astype(np.float32).astype(dtype)
    compressed(weights, "pack-quantized", weight, scale, zero)


@pytest.mark.parametrize("dtype", [BF16, np.float16], ids=["bf16", "f16"])
@pytest.mark.parametrize("kind", ["int", "float"])
@pytest.mark.parametrize("strategy", ["tensor", "channel", "group", "block"])
def test_compressed_tensors_bytes(strategy: str, kind: str, dtype: Any):
    rng = np.random.default_rng(0)
    shape = (100, 192)
    grids = {"tensor": (1,), "channel": (100, 1), "group": (100, 3), "block": (4, 6)}
    more: dict[str, Any] = {"group": {"group_size": 64}, "block": {"block_structure": [32, 32]}}.get(strategy, {})
    scale = (rng.random(grids[strategy]) * 0.02 + 1e-3).astype(np.float32).astype(dtype)
    weights = {"num_bits": 8, "type": kind, "strategy": strategy, **more}
    compressed(weights, f"{kind}-quantized", rng.standard_normal(shape).astype(np.float32).astype(dtype), scale)


def test_compressed_tensors_int8_with_zero_points():
    rng = np.random.default_rng(0)
    scale = (rng.random((50, 1)) * 0.02 + 1e-3).astype(np.float32).astype(BF16)
    zero = rng.integers(-128, 128, scale.shape).astype(np.int8)
    weights = {"num_bits": 8, "type": "int", "strategy": "channel", "symmetric": False}
    compressed(weights, "int-quantized", rng.standard_normal((50, 70)).astype(np.float32).astype(BF16), scale, zero)


def test_compressed_tensors_nvfp4():
    rng = np.random.default_rng(0)
    scale = (rng.random((48, 6)) * 300 + 1).astype(np.float32)
    weights = {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16}
    whole = np.float32([1234.567])
    weight = (rng.standard_normal((48, 96)) * 0.3).astype(np.float32)
    compressed(weights, "nvfp4-pack-quantized", weight, scale, weight_global_scale=whole)


@pytest.mark.parametrize("format", ["mxfp4-pack-quantized", "mxfp8-quantized"])
def test_compressed_tensors_mx(format: str):
    rng = np.random.default_rng(0)
    scale = np.exp2(rng.integers(-9, 3, (48, 3))).astype(np.float32)
    weights = {
        "num_bits": 4 if "4" in format else 8,
        "type": "float",
        "strategy": "group",
        "group_size": 32,
        "scale_dtype": "torch.uint8",
    }
    compressed(weights, format, rng.standard_normal((48, 96)).astype(np.float32), scale)


@pytest.mark.parametrize("format", ["nvfp4-pack-quantized", "mxfp4-pack-quantized", "mxfp8-quantized"])
def test_compressed_tensors_reads_every_code(format: str):
    """Whatever the bytes are, NaN and exponent 255 among them."""
    from compressed_tensors.compressors.base import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    rng = np.random.default_rng(0)
    scales = rng.integers(0, 256, (48, 6 if format[0] == "n" else 3)).astype(np.uint8)
    if format == "mxfp8-quantized":
        tensors = {
            "m.weight": rng.integers(0, 256, (48, 96)).astype(np.uint8).view(ml_dtypes.float8_e4m3fn),
            "m.weight_scale": scales,
        }
    else:
        tensors = {"m.weight_packed": rng.integers(0, 256, (48, 48)).astype(np.uint8), "m.weight_scale": scales}
    if format[0] == "n":
        tensors |= {"m.weight_scale": scales.view(ml_dtypes.float8_e4m3fn), "m.weight_global_scale": np.float32([77.7])}
    weights = {"num_bits": 8 if "8" in format else 4, "type": "float", "group_size": 16 if format[0] == "n" else 32}
    weights["strategy"] = "tensor_group" if format[0] == "n" else "group"
    scheme = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(**weights))
    state = {key.removeprefix("m."): to_torch(array) for key, array in tensors.items()}
    expected = BaseCompressor.get_value_from_registry(format).decompress(state, scheme)["weight"]
    said = {
        "quant_method": "compressed-tensors",
        "format": format,
        "config_groups": {"g": {"targets": ["Linear"], "weights": weights}},
    }
    agree(tensors, {"quantization_config": said}, to_numpy(expected))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_compressed_tensors_reads_ragged_blocks(dtype: str):
    """DeepSeek-V3's 576 rows are four blocks and a half."""
    import torch
    from compressed_tensors.entrypoints.convert import FP8BlockDequantizer

    rng = np.random.default_rng(0)
    tensors = {
        "m.weight": rng.integers(0, 256, (576, 200)).astype(np.uint8).view(ml_dtypes.float8_e4m3fn),
        "m.weight_scale_inv": wild(rng, (5, 2), np.float32),
    }
    judge = FP8BlockDequantizer(targets=["m"], weight_block_size=(128, 128), dtype=getattr(torch, dtype))
    expected = judge.process({key: to_torch(array) for key, array in tensors.items()})["m.weight"]
    agree(
        tensors, {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}, to_numpy(expected)
    )
