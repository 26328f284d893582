"""Transformers, bitsandbytes and mlx read what we read."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests.quantized.judge import agree, to_numpy, to_torch
from tests.quantized.plain import BF16, wild

pytestmark = pytest.mark.torch


# ---- transformers


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_transformers_fp8(dtype: str):
    import torch
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize

    rng = np.random.default_rng(0)
    stored = rng.integers(0, 256, (256, 384)).astype(np.uint8).view(ml_dtypes.float8_e4m3fn)
    for scale in (
        wild(rng, (2, 3), np.float32),
        wild(rng, (2, 3), BF16),
        rng.integers(0, 256, (256, 12)).astype(np.uint8),
    ):
        expected = Fp8Dequantize(None)._dequantize_one(to_torch(stored), to_torch(scale), getattr(torch, dtype))
        tensors = {"m.weight": stored, "m.weight_scale_inv": scale}
        agree(
            tensors,
            {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}},
            to_numpy(expected),
        )


def test_transformers_fp4_experts():
    import torch
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize

    rng = np.random.default_rng(0)
    stored = rng.integers(-128, 128, (64, 96)).astype(np.int8)
    scale = rng.integers(0, 256, (64, 6)).astype(np.uint8)
    expected = Fp8Dequantize(None)._dequantize_one(to_torch(stored), to_torch(scale), torch.float32)
    agree({"m.weight": stored, "m.scale": scale}, {"quantization_config": {"quant_method": "fp8"}}, to_numpy(expected))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_transformers_mxfp4(dtype: str):
    import torch
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    rng = np.random.default_rng(0)
    tensors = {
        "m.gate_up_proj_blocks": rng.integers(0, 256, (2, 96, 5, 16)).astype(np.uint8),
        "m.gate_up_proj_scales": rng.integers(0, 256, (2, 96, 5)).astype(np.uint8),
    }
    expected = convert_moe_packed_tensors(*map(to_torch, tensors.values()), dtype=getattr(torch, dtype))
    agree(tensors, {"quantization_config": {"quant_method": "mxfp4"}}, to_numpy(expected), "m.gate_up_proj")


def test_transformers_metal():
    from transformers.integrations.metal_quantization import _affine_dequantize_tensor

    rng = np.random.default_rng(0)
    tensors = {
        "m.weight": rng.integers(0, 2**31, (40, 24)).astype(np.uint32),
        "m.scales": wild(rng, (40, 3), np.float16),
        "m.qbiases": wild(rng, (40, 3), np.float16),
    }
    words, scales, biases = tensors.values()
    expected = _affine_dequantize_tensor(to_torch(words.view(np.int32)), to_torch(scales), to_torch(biases), 64, 4)
    agree(tensors, {"quantization_config": {"quant_method": "metal", "bits": 4, "group_size": 64}}, to_numpy(expected))


# ---- bitsandbytes


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("nested", [False, True], ids=["flat", "nested"])
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("shape", [(64, 96), (50, 30), (128, 192)], ids=str)
def test_bitsandbytes_four_bits(shape: tuple[int, int], kind: str, nested: bool, dtype: str):
    """Its default kernel: that for CPUs is wrong where a row is no whole number of blocks."""
    import torch
    from bitsandbytes.backends.default.ops import _dequantize_4bit_compute
    from bitsandbytes.functional import dequantize_blockwise, quantize_4bit

    torch.manual_seed(0)
    packed, state = quantize_4bit(torch.randn(shape), blocksize=64, quant_type=kind, compress_statistics=nested)
    tensors = {f"m.weight.{key}": to_numpy(value) for key, value in state.as_dict(packed=True).items()}
    tensors["m.weight"] = to_numpy(packed)
    largest = state.absmax
    if nested:
        largest = dequantize_blockwise(state.absmax, state.state2) + state.offset
    expected = _dequantize_4bit_compute(packed.reshape(-1), largest, state.code, 64, shape, getattr(torch, dtype))
    agree(tensors, {}, to_numpy(expected))


def test_bitsandbytes_eight_bits():
    from bitsandbytes.functional import int8_vectorwise_dequant

    rng = np.random.default_rng(0)
    tensors = {"m.weight": rng.integers(-128, 128, (40, 70)).astype(np.int8), "m.SCB": wild(rng, (40,), np.float32)}
    agree(tensors, {}, to_numpy(int8_vectorwise_dequant(*map(to_torch, tensors.values()))))


# ---- mlx


def from_mlx(array: Any) -> np.ndarray:
    import mlx.core as mx

    if array.dtype == mx.bfloat16:
        return np.array(array.view(mx.uint16)).view(BF16)
    return np.array(array)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_mlx_affine(bits: int, dtype: str):
    import mlx.core as mx

    mx.set_default_device(mx.cpu)
    weight = mx.random.normal((48, 256), key=mx.random.key(0)).astype(getattr(mx, dtype))
    words, scales, biases = mx.quantize(weight, group_size=64, bits=bits)
    expected = mx.dequantize(words, scales, biases, group_size=64, bits=bits)
    tensors = {"m.weight": from_mlx(words), "m.scales": from_mlx(scales), "m.biases": from_mlx(biases)}
    agree(tensors, {"quantization": {"group_size": 64, "bits": bits}}, from_mlx(expected))


@pytest.mark.parametrize("mode", ["mxfp4", "nvfp4", "mxfp8"])
def test_mlx_floats(mode: str):
    """Whatever the bytes are, NaN and exponent 255 among them."""
    import mlx.core as mx

    mx.set_default_device(mx.cpu)
    rng = np.random.default_rng(0)
    bits, group = 8 if mode == "mxfp8" else 4, 16 if mode == "nvfp4" else 32
    stored = rng.integers(0, 256, (48, 256 * bits // 8)).astype(np.uint8).view(np.uint32)
    tensors = {"m.weight": stored, "m.scales": rng.integers(0, 256, (48, 256 // group)).astype(np.uint8)}
    for dtype in (mx.float32, mx.bfloat16):
        expected = mx.dequantize(*map(mx.array, tensors.values()), mode=mode, dtype=dtype)
        agree(tensors, {"quantization": {"group_size": group, "bits": bits, "mode": mode}}, from_mlx(expected))
