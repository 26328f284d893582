"""Floats of 8 bits, against the formula: `float32(code) * float32(scale)`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from bridge import CheckpointError
from tests.quantized.contract import Case, FormatContract, Shape
from tests.quantized.plain import BF16, E4M3, E8M0, blocks, expand, wild
from tests.quantized.stored import Tensors, assert_same, found_in, read

FP8 = {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}, "torch_dtype": "bfloat16"}
MXFP8 = {"quantization_config": {"quant_method": "mxfp8"}}
FBGEMM = {"quantization_config": {"quant_method": "fbgemm_fp8"}}


def codes(rng: np.random.Generator, shape: Shape, nan: bool, dtype: Any = E4M3) -> np.ndarray:
    made = rng.integers(0, 256, shape).astype(np.uint8)
    if not nan:
        made[(made & 127) == 127] = 3
    return made.view(dtype)


def maker(
    block: Callable[[Shape], Shape],
    scale: str = "m.weight_scale_inv",
    dtype: Any = np.float32,
    nan: bool = False,
    key: str = "m.weight",
    huge: bool = False,
    stored: Callable[[Shape], Shape] = lambda grid: grid,
) -> Callable[[np.random.Generator, Shape], Tensors]:
    def make(rng: np.random.Generator, shape: Shape) -> Tensors:
        grid = blocks(shape, block(shape))
        if np.dtype(dtype).itemsize == 1:
            factors = rng.integers(0, 256 if huge else 134, grid).astype(np.uint8).view(dtype)
        else:
            factors = wild(rng, grid, dtype)
            if not huge:
                factors = np.clip(factors, -100, 100).astype(dtype)
        return {key: codes(rng, shape, nan), scale: factors.reshape(stored(grid))}

    return make


def formula(block: Callable[[Shape], Shape], rounds: Any = np.float32) -> Callable[[Tensors, Shape], np.ndarray]:
    def reference(tensors: Tensors, shape: Shape) -> np.ndarray:
        stored, factors = tensors.values()
        if factors.dtype == np.uint8:
            values = np.exp2(factors.astype(np.float64) - 127).astype(np.float32)
        else:
            values = factors.astype(np.float32)
        grid = blocks(shape, block(shape))
        expanded = expand(values.reshape(grid), shape, block(shape))
        return (stored.astype(np.float32) * expanded).astype(rounds)

    return reference


def square(shape: Shape) -> Shape:
    return (*(1 for _ in shape[:-2]), 128, 128)


def one(shape: Shape) -> Shape:
    return shape


def channel(shape: Shape) -> Shape:
    return (*(1 for _ in shape[:-1]), shape[-1])


def groups(shape: Shape) -> Shape:
    return (*(1 for _ in shape[:-1]), 32)


class TestFp8(FormatContract):
    cases = (
        Case("blocks", FP8, maker(square), formula(square)),
        Case("blocks with NaN", FP8, maker(square, nan=True), formula(square)),
        Case("blocks, bfloat16 scales", FP8, maker(square, dtype=BF16), formula(square)),
        Case("blocks, huge scales", FP8, maker(square, huge=True), formula(square)),
        Case("blocks, exponents", FP8, maker(square, "m.scale", E8M0, huge=True), formula(square)),
        Case("Mistral, one scale", FP8, maker(one, "m.qscale_weight", stored=lambda grid: ()), formula(one)),
        Case("channels", FBGEMM, maker(channel, "m.weight_scale"), formula(channel)),
        Case("mxfp8", MXFP8, maker(groups, "m.weight_scale_inv", np.uint8), formula(groups), (1, 32)),
        Case("mxfp8, huge", MXFP8, maker(groups, "m.weight_scale_inv", np.uint8, huge=True), formula(groups), (1, 32)),
        Case(
            "fused experts",
            FP8,
            maker(square, "m.gate_up_proj_scale_inv", key="m.gate_up_proj"),
            formula(square),
            batch=True,
            key="m.gate_up_proj",
        ),
        Case("experts", FP8, maker(square), formula(square), batch=True),
        Case("no config", {}, maker(one, stored=lambda grid: (1,)), formula(one)),
    )


def test_a_ragged_grid_is_the_configs_blocks_not_a_fraction():
    """192 rows with 2 scales are a block of 128 and one of 64; never two of 96."""
    tensors = maker(square)(np.random.default_rng(0), (192, 256))
    found = found_in(tensors, FP8)
    assert str(found.tensors["m.weight"].form) == "fp8 in blocks of 128 x 128"
    got = read(found.tensors["m.weight"], tensors)
    assert_same(
        got[100:128],
        (tensors["m.weight"].astype(np.float32) * expand(tensors["m.weight_scale_inv"], (192, 256), (128, 128)))[
            100:128
        ],
    )


def test_blocks_that_the_config_does_not_say_are_what_the_grid_says():
    rng = np.random.default_rng(0)
    tensors = {"m.weight": codes(rng, (64, 96), False), "m.weight_scale_inv": wild(rng, (2, 3), np.float32)}
    assert found_in(tensors).tensors["m.weight"].form.how == "in blocks of 32 x 32"
    assert found_in(tensors, FP8).tensors["m.weight"].form.how == "in blocks of 32 x 32"


@pytest.mark.parametrize("grid", [(3, 2), (2, 5), (7,), (2, 2, 2)])
def test_a_grid_that_fits_no_block_is_refused(grid: Shape):
    rng = np.random.default_rng(0)
    tensors = {"m.weight": codes(rng, (256, 256), False), "m.weight_scale_inv": wild(rng, grid, np.float32)}
    with pytest.raises(CheckpointError, match=r"does not fit 'm\.weight' of shape"):
        found_in(tensors, FP8)


def test_experts_in_four_bits_beside_eight():
    rng = np.random.default_rng(0)
    tensors = dict(maker(square)(rng, (256, 128)))
    tensors |= {
        "e.weight": rng.integers(-128, 128, (8, 32)).astype(np.int8),
        "e.scale": rng.integers(100, 140, (8, 2)).astype(np.uint8).view(E8M0),
    }
    tensors |= {"plain.weight": np.ones((3, 4), np.int8), "norm.scale": np.ones(4, np.float32)}
    found = found_in(tensors, FP8)
    assert {key: str(t.form) for key, t in found.tensors.items()} == {
        "m.weight": "fp8 in blocks of 128 x 128",
        "e.weight": "mxfp4 in groups of 32",
    }


def test_another_float_of_eight_bits():
    rng = np.random.default_rng(0)
    stored = rng.integers(0, 256, (40, 70)).astype(np.uint8).view(ml_dtypes.float8_e5m2)
    tensors = {"m.weight": stored, "m.weight_scale_inv": np.float32([0.37])}
    expected = stored.astype(np.float32) * np.float32(0.37)
    assert_same(read(found_in(tensors, FP8).tensors["m.weight"], tensors), expected)
