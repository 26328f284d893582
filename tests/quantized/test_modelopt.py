"""ModelOpt, against its formulas; `pre_quant_scale` against `W · p`, which nobody else undoes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bridge import CheckpointError
from tests.quantized.contract import Case, FormatContract, Shape
from tests.quantized.plain import E2M1, E4M3, expand, halves, wild
from tests.quantized.stored import Tensors, found_in
from tests.quantized.test_mxfp4 import powers

Make, Formula = Callable[[np.random.Generator, Shape], Tensors], Callable[[Tensors, Shape], np.ndarray]
NO_MINUS = np.where(np.arange(16) == 8, np.float32(0), E2M1)


def said(algo: str, **fields: Any) -> dict[str, Any]:
    return {
        "producer": {"name": "modelopt"},
        "quantization": {"quant_algo": algo, "exclude_modules": ["lm_head"], **fields},
    }


def fp8(grid: Callable[[Shape], Shape]) -> Make:
    def make(rng: np.random.Generator, shape: Shape) -> Tensors:
        codes = rng.integers(0, 256, shape).astype(np.uint8).view(E4M3)
        return {
            "m.weight": codes,
            "m.weight_scale": wild(rng, grid(shape), np.float32),
            "m.input_scale": np.float32(1).reshape(()),
        }

    return make


def fp8_formula(tensors: Tensors, shape: Shape) -> np.ndarray:
    scale = tensors["m.weight_scale"]
    if scale.ndim == 4:
        scale = expand(scale[:, 0, :, 0], shape, (32, 32))
    elif scale.ndim == 1:
        scale = scale[:, None]
    return tensors["m.weight"].astype(np.float32) * scale


def nvfp4(rng: np.random.Generator, shape: Shape) -> Tensors:
    return {
        "m.weight": rng.integers(0, 256, (shape[0], shape[1] // 2)).astype(np.uint8),
        "m.weight_scale": rng.integers(0, 256, (shape[0], shape[1] // 16)).astype(np.uint8).view(E4M3),
        "m.weight_scale_2": np.float32(0.000345678).reshape(()),
    }


def nvfp4_formula(tensors: Tensors, shape: Shape) -> np.ndarray:
    scale = tensors["m.weight_scale"].astype(np.float32) * tensors["m.weight_scale_2"]
    return NO_MINUS[halves(tensors["m.weight"])] * expand(scale, shape, (1, 16))


def int4(rng: np.random.Generator, shape: Shape) -> Tensors:
    return {
        "m.weight": rng.integers(0, 256, (shape[0] // 2, shape[1])).astype(np.uint8),
        "m.weight_scale": wild(rng, (shape[0], shape[1] // 128), np.float32),
    }


def int4_formula(tensors: Tensors, shape: Shape) -> np.ndarray:
    stored = tensors["m.weight"]
    codes = np.stack([stored & 15, stored >> 4], 1).reshape(shape).astype(np.int64)
    return np.where(codes > 7, codes - 16, codes).astype(np.float32) * expand(
        tensors["m.weight_scale"], shape, (1, 128)
    )


def mxfp4(rng: np.random.Generator, shape: Shape) -> Tensors:
    return {
        "m.weight": rng.integers(0, 256, (shape[0], shape[1] // 2)).astype(np.uint8),
        "m.weight_scale": rng.integers(0, 256, (shape[0], shape[1] // 32)).astype(np.uint8),
    }


def mxfp4_formula(tensors: Tensors, shape: Shape) -> np.ndarray:
    return E2M1[halves(tensors["m.weight"])] * expand(powers(tensors["m.weight_scale"]), shape, (1, 32))


def int8(rng: np.random.Generator, shape: Shape) -> Tensors:
    return {
        "m.weight": rng.integers(-128, 128, shape).astype(np.int8),
        "m.weight_scale": wild(rng, shape[:1], np.float32),
    }


def int8_formula(tensors: Tensors, shape: Shape) -> np.ndarray:
    return tensors["m.weight"].astype(np.float32) * tensors["m.weight_scale"][:, None]


def smoothed(make: Make, formula: Formula) -> tuple[Make, Formula]:
    def made(rng: np.random.Generator, shape: Shape) -> Tensors:
        return {**make(rng, shape), "m.pre_quant_scale": rng.standard_normal(shape[1]).astype(np.float32)}

    return made, lambda tensors, shape: formula(tensors, shape) * tensors["m.pre_quant_scale"]


def case(name: str, algo: str, make: Make, formula: Formula, step: Shape = (1, 1), **fields: Any) -> Case:
    return Case(name, {}, make, formula, step, modelopt=said(algo, **fields))


class TestModelopt(FormatContract):
    cases = (
        case("fp8", "FP8", fp8(lambda shape: ()), fp8_formula),
        case("fp8, channels", "FP8_PER_CHANNEL_PER_TOKEN", fp8(lambda shape: shape[:1]), fp8_formula),
        case(
            "fp8, blocks", "FP8_PB_WO", fp8(lambda shape: (shape[0] // 32, 1, shape[1] // 32, 1)), fp8_formula, (32, 32)
        ),
        case("nvfp4", "NVFP4", nvfp4, nvfp4_formula, (1, 16)),
        case("nvfp4, awq", "NVFP4_AWQ", *smoothed(nvfp4, nvfp4_formula), (1, 16)),
        case("int4, awq", "W4A16_AWQ", *smoothed(int4, int4_formula), (2, 128)),
        case("int4", "W4A16_AWQ", int4, int4_formula, (2, 128), group_size=128),
        case("mxfp4", "MXFP4", mxfp4, mxfp4_formula, (1, 32)),
        case("mxfp4, smoothed", "MXFP4", *smoothed(mxfp4, mxfp4_formula), (1, 32)),
        case("int8", "INT8_SQ", int8, int8_formula),
        case("int8, smoothed", "INT8_SQ", *smoothed(int8, int8_formula)),
        case("fp8, smoothed", "FP8", *smoothed(fp8(lambda shape: ()), fp8_formula)),
    )


def test_without_a_config_nvfp4_tells():
    tensors = dict(nvfp4(np.random.default_rng(0), (8, 32)))
    assert str(found_in(tensors).tensors["m.weight"].form) == "nvfp4 in groups of 16"
    smooth, _ = smoothed(fp8(lambda shape: ()), fp8_formula)
    found = found_in(smooth(np.random.default_rng(0), (8, 32)))
    assert found.tensors["m.weight"].form.roles == ("head", "scale", "inputs")
    for plain in (int4, mxfp4, int8):
        assert not found_in(plain(np.random.default_rng(0), (8, 128))).tensors


def test_the_newer_config_names_it_too():
    tensors = nvfp4(np.random.default_rng(0), (8, 32))
    found = found_in(tensors, {"quantization_config": {"quant_method": "modelopt", "quant_algo": "NVFP4"}})
    assert str(found.tensors["m.weight"].form) == "nvfp4 in groups of 16"


@pytest.mark.parametrize("left_out", ["weight", "weight_scale", "weight_scale_2"])
def test_an_incomplete_set_is_refused(left_out: str):
    tensors = dict(nvfp4(np.random.default_rng(0), (8, 32)))
    del tensors[f"m.{left_out}"]
    with pytest.raises(CheckpointError, match=r"beside it|the codes for its .* are missing"):
        found_in(tensors, modelopt=said("NVFP4"))


def test_a_pre_quant_scale_of_another_length_is_refused():
    tensors = {**nvfp4(np.random.default_rng(0), (8, 32)), "m.pre_quant_scale": np.ones(16, np.float32)}
    with pytest.raises(CheckpointError, match=r"'m\.pre_quant_scale' of shape .* one number for each of 32 inputs"):
        found_in(tensors, modelopt=said("NVFP4_AWQ"))
