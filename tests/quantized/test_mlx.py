"""MLX, against its formulas; `test_judges.py` asks mlx itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bridge import CheckpointError
from tests.quantized.contract import Case, FormatContract, Shape
from tests.quantized.plain import BF16, E2M1, E4M3, expand, halves, pack, unpack, wild
from tests.quantized.stored import Tensors, found_in
from tests.quantized.test_mxfp4 import powers


def config(method: str = "", **fields: Any) -> dict[str, Any]:
    if method:
        return {"quantization_config": {"quant_method": method, **fields}}
    return {"quantization": fields, "quantization_config": fields}


class Affine:
    def __init__(self, bits: int, group: int = 64, dtype: Any = BF16, *, metal: bool = False) -> None:
        self.bits, self.group, self.dtype, self.metal = bits, group, dtype, metal

    def case(self, name: str, **more: Any) -> Case:
        said = config("metal" if self.metal else "", bits=self.bits, group_size=self.group)
        return Case(name, said, self.make, self.formula, (1, self.group), **more)

    def make(self, rng: np.random.Generator, shape: Shape) -> Tensors:
        grid = (*shape[:-1], shape[-1] // self.group)
        return {
            "m.weight": pack(rng.integers(0, 1 << self.bits, shape), self.bits),
            "m.scales": wild(rng, grid, self.dtype),
            f"m.{'qbiases' if self.metal else 'biases'}": wild(rng, grid, self.dtype),
        }

    def formula(self, tensors: Tensors, shape: Shape) -> np.ndarray:
        words, scales, biases = tensors.values()
        block = (*(1 for _ in shape[:-1]), self.group)
        s, b = expand(scales, shape, block), expand(biases, shape, block)
        codes = unpack(words, self.bits, shape[-1])
        if self.metal:
            return codes.astype(np.float32) * s.astype(np.float32) + b.astype(np.float32)
        return codes.astype(self.dtype) * s + b  # two roundings


def fours(group: int, scale: Any) -> Any:
    def make(rng: np.random.Generator, shape: Shape) -> Tensors:
        return {
            "m.weight": rng.integers(0, 256, (*shape[:-1], shape[-1] // 2)).astype(np.uint8).view(np.uint32),
            "m.scales": rng.integers(0, 255, (*shape[:-1], shape[-1] // group)).astype(np.uint8),
        }

    def formula(tensors: Tensors, shape: Shape) -> np.ndarray:
        block = (*(1 for _ in shape[:-1]), group)
        return E2M1[halves(tensors["m.weight"])] * expand(scale(tensors["m.scales"]), shape, block)

    return make, formula


def eights(rng: np.random.Generator, shape: Shape) -> Tensors:
    return {
        "m.weight": rng.integers(0, 256, shape).astype(np.uint8).view(np.uint32),
        "m.scales": rng.integers(0, 255, (*shape[:-1], shape[-1] // 32)).astype(np.uint8),
    }


def eights_formula(tensors: Tensors, shape: Shape) -> np.ndarray:
    block = (*(1 for _ in shape[:-1]), 32)
    return tensors["m.weight"].view(E4M3).astype(np.float32) * expand(powers(tensors["m.scales"]), shape, block)


NVFP4 = fours(16, lambda stored: stored.view(E4M3).astype(np.float32))


class TestMlx(FormatContract):
    cases = (
        *(Affine(bits).case(f"{bits} bits") for bits in (2, 3, 4, 5, 6, 8)),
        Affine(4, 32, np.float16).case("float16"),
        Affine(3, 128, np.float32).case("float32"),
        Affine(4).case("experts", batch=True),
        Affine(4, 64, np.float16, metal=True).case("metal"),
        Affine(8, 64, BF16, metal=True).case("metal, 8 bits"),
        Case("mxfp4", config(bits=4, group_size=32, mode="mxfp4"), *fours(32, powers), (1, 32)),
        Case("mxfp4, experts", config(bits=4, group_size=32, mode="mxfp4"), *fours(32, powers), (1, 32), batch=True),
        Case("nvfp4", config(bits=4, group_size=16, mode="nvfp4"), *NVFP4, (1, 16)),
        Case("nvfp4, experts", config(bits=4, group_size=16, mode="nvfp4"), *NVFP4, (1, 16), batch=True),
        Case("mxfp8", config(bits=8, group_size=32, mode="mxfp8"), eights, eights_formula, (1, 32)),
        Case(
            "mxfp8, experts", config(bits=8, group_size=32, mode="mxfp8"), eights, eights_formula, (1, 32), batch=True
        ),
    )


def test_a_module_has_its_own_settings():
    rng = np.random.default_rng(0)
    tensors = {f"a.q{k[1:]}": v for k, v in Affine(4).make(rng, (8, 64)).items()}
    tensors |= {f"lm_head{k[1:]}": v for k, v in Affine(6, 32).make(rng, (8, 64)).items()}
    tensors |= {f"e{k[1:]}": v for k, v in fours(32, powers)[0](rng, (8, 64)).items()}
    own = {"lm_head": {"bits": 6, "group_size": 32}, "e": {"bits": 4, "group_size": 32, "mode": "mxfp4"}, "norm": False}
    found = found_in(tensors, config(bits=4, group_size=64, **own))
    assert {key: str(t.form) for key, t in found.tensors.items()} == {
        "a.q.weight": "mlx int4 in groups of 64",
        "lm_head.weight": "mlx int6 in groups of 32",
        "e.weight": "mxfp4 in groups of 32",
    }


def test_a_bias_of_the_layer_is_not_one_of_the_groups():
    tensors = {**Affine(4).make(np.random.default_rng(0), (8, 64)), "m.bias": np.ones(8, np.float32)}
    assert found_in(tensors, config(bits=4, group_size=64)).consumed == {"m.weight", "m.scales", "m.biases"}


@pytest.mark.parametrize("left_out", ["weight", "scales", "biases"])
def test_an_incomplete_set_is_refused(left_out: str):
    tensors = dict(Affine(4).make(np.random.default_rng(0), (8, 64)))
    del tensors[f"m.{left_out}"]
    with pytest.raises(CheckpointError, match=r"beside it|the codes for its .* are missing"):
        found_in(tensors, config(bits=4, group_size=64))
