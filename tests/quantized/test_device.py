"""What a layer makes of packed weights on the device is what a load makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import bridge
import bridge.quantized
from bridge.quantized.device import dequantize_fp8, dequantize_int4, dequantize_mxfp4
from tests.quantized.loads import layers
from tests.quantized.plain import BF16
from tests.quantized.stored import assert_same, found_in, read
from tests.quantized.test_compressed import Pack
from tests.quantized.test_fp8 import FP8

DTYPES = [np.dtype(np.float32), np.dtype(BF16), np.dtype(np.float16)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(256, 384), (576, 200), (3, 5)], ids=str)
def test_fp8(shape: tuple[int, int], dtype: Any):
    rng = np.random.default_rng(0)
    grid = tuple(-(-n // 128) for n in shape)
    tensors = {
        "m.weight": rng.integers(0, 256, shape).astype(np.uint8).view(ml_dtypes.float8_e4m3fn),
        "m.weight_scale_inv": (rng.standard_normal(grid) * 0.01).astype(np.float32),
    }
    expected = read(found_in(tensors, FP8).tensors["m.weight"], tensors, dtype)
    assert_same(
        np.asarray(dequantize_fp8(*map(jnp.asarray, tensors.values()), block=(128, 128), dtype=dtype)), expected
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("scale", [BF16, np.float16, np.float32], ids=["bf16", "f16", "f32"])
@pytest.mark.parametrize("zeros", ["", "bytes"])
def test_int4(zeros: str, scale: Any, dtype: Any):
    made = Pack(4, 32, scale, zeros)
    tensors = dict(made.make(np.random.default_rng(0), (48, 224)))
    size = np.random.default_rng(1).random((48, 7)) * 0.01 + 1e-3
    tensors["m.weight_scale"] = size.astype(np.float32).astype(scale)
    expected = read(found_in(tensors, made.case("").config).tensors["m.weight"], tensors, dtype)
    stored = tensors.get("m.weight_zero_point")
    zero = None if stored is None else jnp.asarray(stored.astype(np.int32) + 8)
    got = dequantize_int4(
        jnp.asarray(tensors["m.weight_packed"]), jnp.asarray(tensors["m.weight_scale"]), zero, dtype=dtype
    )
    assert_same(np.asarray(got), expected)


@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
def test_mxfp4_with_every_code_and_exponent(dtype: Any):
    scales = np.arange(256, dtype=np.uint8).repeat(16).reshape(1, 256, 16)
    blocks = np.broadcast_to(np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16), (1, 256, 16, 16)).copy()
    tensors = {"m.down_proj_blocks": blocks, "m.down_proj_scales": scales}
    expected = read(found_in(tensors).tensors["m.down_proj"], tensors, dtype)
    got = dequantize_mxfp4(jnp.asarray(blocks), jnp.asarray(scales), dtype=dtype)
    assert_same(np.ascontiguousarray(np.asarray(got).swapaxes(1, 2)), expected)


class PackedLinear(eqx.Module):
    """Keeps what is stored: half a byte a weight."""

    words: jax.Array
    scales: jax.Array

    def __call__(self, x: jax.Array) -> jax.Array:
        return dequantize_int4(self.words, self.scales, dtype=x.dtype) @ x


def test_a_layer_that_keeps_codes():
    made = Pack(4, 32)
    tensors = made.make(np.random.default_rng(0), (64, 128))
    layer = PackedLinear(jnp.asarray(tensors["m.weight_packed"]), jnp.asarray(tensors["m.weight_scale"]))
    plain = read(found_in(tensors, made.case("").config).tensors["m.weight"], tensors, np.float32)
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(layer)) < plain.size * 0.6
    x = jnp.arange(128, dtype=jnp.float32)
    np.testing.assert_allclose(eqx.filter_jit(layer)(x), plain @ np.asarray(x), rtol=1e-4)


def test_a_last_group_may_be_cut_short():
    words = jnp.asarray(np.random.default_rng(0).integers(0, 2**31, (4, 5)).astype(np.int32))
    got = dequantize_int4(words, jnp.ones((4, 1), jnp.bfloat16), columns=37)
    assert got.shape == (4, 37)


class Packed(eqx.Module):
    """A layer that holds what is stored."""

    weight: jax.Array
    weight_scale_inv: jax.Array

    def __call__(self, x: jax.Array) -> jax.Array:
        return bridge.quantized.dequantize(self.weight, self.weight_scale_inv, block=(128, 128), dtype=x.dtype) @ x


def test_a_layer_that_keeps_codes_and_scales(tmp_path: Path):
    """Stacked and scanned: each array is as large as in the file, and results are those of the loaded values."""
    source = layers(tmp_path / "q", "fp8", 3, 320, 320)
    like = Packed(jnp.zeros((3, 320, 320), jnp.float8_e4m3fn), jnp.zeros((3, 3, 3)))
    rules = ["h.{l}.up.{weight|weight_scale_inv} -> {weight|weight_scale_inv}", "h.*.up.bias -> _"]
    packed = bridge.load(source, like, rules, quantized="keep")
    with bridge.open(source) as ckpt:
        stored = [ckpt.specs[f"h.{n}.up.{name}"].nbytes for n in range(3) for name in ("weight", "weight_scale_inv")]
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(packed)) == sum(stored)
    plain = bridge.load(source, None, ["h.{l}.up.weight -> w", "h.*.up.bias -> _"], dtype=jnp.float32)["w"]
    x = jnp.linspace(-1, 1, 320, dtype=jnp.float32)
    scanned, _ = jax.lax.scan(lambda x, layer: (layer(x), None), x, packed)
    assert np.array_equal(np.asarray(scanned), np.asarray(jax.lax.scan(lambda x, w: (w @ x, None), x, plain)[0]))


@pytest.mark.parametrize("kind", ["fp8", "int4"])
def test_dequantize_tells_codes_by_their_dtype(kind: str, tmp_path: Path):
    source = layers(tmp_path / "q", kind, 1, 256, 256)
    with bridge.open(source) as ckpt:
        codes, scales, *_ = (jnp.asarray(ckpt[part]) for part in ckpt.quantized["h.0.up.weight"].parts)
        assert_same(np.asarray(bridge.quantized.dequantize(codes, scales)), ckpt.quantized["h.0.up.weight"].read())
