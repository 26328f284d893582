"""compressed-tensors, against formulas that unpack bit by bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bridge import CheckpointError
from bridge.quantized import find
from tests.quantized.contract import Case, FormatContract, Shape
from tests.quantized.plain import BF16, E2M1, E4M3, E8M0, blocks, expand, halves, pack, unpack, wild
from tests.quantized.stored import Tensors, assert_same, columns, found_in, read
from tests.quantized.test_mxfp4 import powers


def config(format: str = "pack-quantized", **weights: Any) -> dict[str, Any]:
    group = {"targets": ["Linear"], "weights": {"type": "int", "symmetric": True, **weights}}
    return {
        "quantization_config": {
            "quant_method": "compressed-tensors",
            "format": format,
            "config_groups": {"group_0": group},
        }
    }


class Pack:
    """Integers in words: how they are made, and the formula."""

    def __init__(
        self, bits: int, group: int = 0, dtype: Any = BF16, zeros: str = "", dense: bool = True, order: str = ""
    ) -> None:
        self.bits, self.group, self.dtype, self.zeros, self.dense, self.order = bits, group, dtype, zeros, dense, order

    def case(self, name: str) -> Case:
        said = config(
            num_bits=self.bits,
            group_size=self.group or None,
            symmetric=not self.zeros,
            strategy="group" if self.group else "channel",
        )
        return Case(name, said, self.make, self.formula, (1, self.group or 1), least=160 if 32 % self.bits else 1)

    def groups(self, shape: Shape) -> int:
        return shape[1] // self.group if self.group else 1

    def make(self, rng: np.random.Generator, shape: Shape) -> Tensors:
        codes = rng.integers(0, 1 << self.bits, shape)
        grid = (shape[0], self.groups(shape))
        made = {
            "m.weight_packed": pack(codes, self.bits, self.dense).view(np.int32),
            "m.weight_scale": wild(rng, grid, self.dtype),
            "m.weight_shape": np.array(shape, np.int64),
        }
        if self.zeros == "words":
            zeros = rng.integers(0, 1 << self.bits, grid)
            made["m.weight_zero_point"] = np.ascontiguousarray(pack(zeros.T, self.bits, self.dense).T).view(np.int32)
        elif self.zeros:
            made["m.weight_zero_point"] = rng.integers(-(1 << self.bits - 1), 1 << self.bits - 1, grid).astype(np.int8)
        if self.order:
            plain = np.arange(shape[1]) // self.group
            made["m.weight_g_idx"] = {
                "permuted": rng.permutation(plain),
                "plain": plain,
                "unset": np.full_like(plain, -1),
            }[self.order].astype(np.int32)
        return made

    def formula(self, tensors: Tensors, shape: Shape) -> np.ndarray:
        middle = 1 << self.bits - 1
        codes = unpack(tensors["m.weight_packed"], self.bits, shape[1], self.dense) - middle
        scales = tensors["m.weight_scale"]
        zeros = np.zeros(scales.shape, np.int64)
        if self.zeros == "words":
            zeros = (
                unpack(np.ascontiguousarray(tensors["m.weight_zero_point"].T), self.bits, shape[0], self.dense).T
                - middle
            )
        elif self.zeros:
            zeros = tensors["m.weight_zero_point"].astype(np.int64)
        column = (
            tensors["m.weight_g_idx"] if self.order == "permuted" else np.arange(shape[1]) // (self.group or shape[1])
        )
        difference = (codes - zeros[:, column]).astype(self.dtype)
        return difference * scales[:, column]  # in the dtype of the scales


class TestPacked(FormatContract):
    cases = (
        *(Pack(bits, 32).case(f"{bits} bits") for bits in range(2, 9)),
        *(Pack(bits, 32, dense=False).case(f"{bits} bits, so many to a word") for bits in (3, 5, 6, 7)),
        *(Pack(bits, 32, zeros="words").case(f"{bits} bits, zero points") for bits in range(2, 9)),
        *(
            Pack(bits, 32, zeros="words", dense=False).case(f"{bits} bits, so many to a word, zeros")
            for bits in (3, 5, 6, 7)
        ),
        *(Pack(bits).case(f"{bits} bits, channels") for bits in (3, 4, 8)),
        Pack(4, zeros="words").case("channels, zero points"),
        Pack(4, 32, zeros="bytes").case("zero points as bytes"),
        Pack(4, 128, np.float16).case("float16"),
        Pack(8, 128, np.float16, "words").case("8 bits in float16"),
        Pack(4, 128, np.float32).case("float32"),
        Pack(4, 24).case("groups of 24"),
        Pack(4, 32, order="permuted").case("g_idx"),
        Pack(4, 32, np.float16, "words", order="permuted").case("g_idx, zero points"),
        Pack(4, 32, order="plain").case("g_idx that counts up"),
        Pack(4, 32, order="unset").case("g_idx of -1"),
    )

    def made(self, case: Case, shape: Shape, seed: int = 0) -> Any:
        if "that counts up" in case.name:  # then it is not read again
            made = super().made(case, shape, seed)
            assert "m.weight_g_idx" in made[1].beside
            return made
        return super().made(case, shape, seed)


def int8(block: Shape, dtype: Any = BF16, zeros: bool = False) -> tuple[Any, Any]:
    def make(rng: np.random.Generator, shape: Shape) -> Tensors:
        grid = blocks(shape, tuple(b or n for b, n in zip(block, shape, strict=True)))
        made = {"m.weight": rng.integers(-128, 128, shape).astype(np.int8), "m.weight_scale": wild(rng, grid, dtype)}
        return made | ({"m.weight_zero_point": rng.integers(-128, 128, grid).astype(np.int8)} if zeros else {})

    def formula(tensors: Tensors, shape: Shape) -> np.ndarray:
        size = tuple(b or n for b, n in zip(block, shape, strict=True))
        zero = expand(tensors["m.weight_zero_point"].astype(np.int64), shape, size) if zeros else 0
        return (tensors["m.weight"].astype(np.int64) - zero).astype(dtype) * expand(
            tensors["m.weight_scale"], shape, size
        )

    return make, formula


def float8(block: Shape, dtype: Any = BF16) -> tuple[Any, Any]:
    def make(rng: np.random.Generator, shape: Shape) -> Tensors:
        grid = blocks(shape, tuple(b or n for b, n in zip(block, shape, strict=True)))
        return {
            "m.weight": rng.integers(0, 256, shape).astype(np.uint8).view(E4M3),
            "m.weight_scale": wild(rng, grid, dtype),
            "m.input_scale": np.float32([1]),
        }

    def formula(tensors: Tensors, shape: Shape) -> np.ndarray:
        size = tuple(b or n for b, n in zip(block, shape, strict=True))
        return tensors["m.weight"].astype(dtype) * expand(tensors["m.weight_scale"], shape, size)

    return make, formula


def mxfp8(rng: np.random.Generator, shape: Shape) -> Tensors:
    return {
        "m.weight": rng.integers(0, 256, shape).astype(np.uint8).view(E4M3),
        "m.weight_scale": rng.integers(0, 255, (shape[0], shape[1] // 32)).astype(np.uint8),
    }


def mxfp8_formula(tensors: Tensors, shape: Shape) -> np.ndarray:
    return tensors["m.weight"].astype(np.float32) * expand(powers(tensors["m.weight_scale"]), shape, (1, 32))


class TestBytes(FormatContract):
    cases = (
        Case("int8, channels", config("int-quantized", num_bits=8, strategy="channel"), *int8((1, 0))),
        Case("int8, one scale", config("int-quantized", num_bits=8, strategy="tensor"), *int8((0, 0))),
        Case(
            "int8, zero points",
            config("int-quantized", num_bits=8, strategy="channel"),
            *int8((1, 0), np.float16, True),
        ),
        Case(
            "int8, groups",
            config("int-quantized", num_bits=8, group_size=32),
            *int8((1, 32), np.float32, True),
            (1, 32),
        ),
        Case("float8, one scale", config("float-quantized", num_bits=8, strategy="tensor"), *float8((0, 0))),
        Case(
            "float8, channels", config("float-quantized", num_bits=8, strategy="channel"), *float8((1, 0), np.float16)
        ),
        Case("float8, groups", config("float-quantized", num_bits=8, group_size=64), *float8((1, 64)), (1, 64)),
        Case("float8, blocks", config("float-quantized", num_bits=8, block_structure=[128, 128]), *float8((128, 128))),
        Case("float8, float32", config("naive-quantized", num_bits=8, strategy="channel"), *float8((1, 0), np.float32)),
        Case("mxfp8", config("mxfp8-quantized", num_bits=8, group_size=32), mxfp8, mxfp8_formula, (1, 32)),
    )


def nvfp4(rng: np.random.Generator, shape: Shape) -> Tensors:
    return {
        "m.weight_packed": rng.integers(0, 256, (shape[0], shape[1] // 2)).astype(np.uint8),
        "m.weight_scale": rng.integers(0, 256, (shape[0], shape[1] // 16)).astype(np.uint8).view(E4M3),
        "m.weight_global_scale": np.float32([2345.678]),
        "m.input_global_scale": np.float32([1]),
    }


def nvfp4_formula(tensors: Tensors, shape: Shape) -> np.ndarray:
    scale = tensors["m.weight_scale"].astype(np.float32) / tensors["m.weight_global_scale"]
    return E2M1[halves(tensors["m.weight_packed"])] * expand(scale, shape, (1, 16))


def mxfp4(dtype: Any) -> Any:
    def make(rng: np.random.Generator, shape: Shape) -> Tensors:
        return {
            "m.weight_packed": rng.integers(0, 256, (shape[0], shape[1] // 2)).astype(np.uint8),
            "m.weight_scale": rng.integers(0, 256, (shape[0], shape[1] // 32)).astype(np.uint8).view(dtype),
        }

    return make


def mxfp4_formula(tensors: Tensors, shape: Shape) -> np.ndarray:
    return E2M1[halves(tensors["m.weight_packed"])] * expand(powers(tensors["m.weight_scale"]), shape, (1, 32))


class TestFours(FormatContract):
    cases = (
        Case("nvfp4", config("nvfp4-pack-quantized", num_bits=4, type="float"), nvfp4, nvfp4_formula, (1, 16)),
        Case(
            "mxfp4", config("mxfp4-pack-quantized", num_bits=4, type="float"), mxfp4(np.uint8), mxfp4_formula, (1, 32)
        ),
        Case("mxfp4, NaN", config("mxfp4-pack-quantized", num_bits=4), mxfp4(E8M0), mxfp4_formula, (1, 32)),
    )


def test_each_module_has_its_groups_format():
    rng = np.random.default_rng(0)
    shape = (64, 128)
    first, second, third = Pack(4, 32), Pack(8, 32), Pack(3)
    tensors = {
        **{f"a.q_proj{k[1:]}": v for k, v in first.make(rng, shape).items()},
        **{f"a.down_proj{k[1:]}": v for k, v in second.make(rng, shape).items()},
        **{f"lm_head{k[1:]}": v for k, v in third.make(rng, shape).items()},
        **{f"a.up_proj{k[1:]}": v for k, v in float8((1, 0))[0](rng, shape).items()},
    }
    groups = {
        "group_0": {"targets": ["Linear"], "weights": {"num_bits": 4, "group_size": 32}, "format": "pack-quantized"},
        "group_1": {
            "targets": ["re:.*down_proj"],
            "weights": {"num_bits": 8, "group_size": 32},
            "format": "pack-quantized",
        },
        "group_2": {
            "targets": ["lm_head"],
            "weights": {"num_bits": 3, "strategy": "channel"},
            "format": "pack-quantized",
        },
        "group_3": {
            "targets": ["re:.*up_proj"],
            "weights": {"num_bits": 8, "type": "float"},
            "format": "float-quantized",
        },
    }
    said = {
        "quantization_config": {
            "quant_method": "compressed-tensors",
            "format": "mixed-precision",
            "config_groups": groups,
        }
    }
    found = found_in(tensors, said)
    assert {key: str(t.form) for key, t in found.tensors.items()} == {
        "a.q_proj.weight": "int4 in groups of 32",
        "a.down_proj.weight": "int8 in groups of 32",
        "lm_head.weight": "int3 by channel",
        "a.up_proj.weight": "fp8 by channel",
    }
    plain = {f"m{key.removeprefix('a.down_proj')}": array for key, array in tensors.items() if "down" in key}
    assert_same(read(found.tensors["a.down_proj.weight"], tensors), second.formula(plain, shape).astype(np.float32))


def test_only_what_headers_do_not_say_is_read():
    """Groups tell how long a row is; a scale for each row does not."""
    for made, needs in ((Pack(4, 32), ()), (Pack(4), ("m.weight_shape",))):
        tensors = made.make(np.random.default_rng(0), (8, 64))
        said = config(num_bits=4, group_size=made.group or None, strategy="group" if made.group else "channel")
        assert find(*columns(tensors), said).needs == needs


def test_short_rows_that_were_packed_either_way_are_refused():
    tensors = Pack(3, 8).make(np.random.default_rng(0), (8, 8))
    with pytest.raises(CheckpointError, match="both ways of packing"):
        found_in(tensors, config(num_bits=3, group_size=8))


def test_words_that_are_too_few_are_refused():
    tensors = dict(Pack(4, 32).make(np.random.default_rng(0), (8, 64)))
    with pytest.raises(CheckpointError, match="has 8 words a row, expected 16 for 64 codes of 8 bits"):
        found_in(tensors, config(num_bits=8, group_size=32))


@pytest.mark.parametrize("left_out", ["weight_packed", "weight_scale", "weight_zero_point"])
def test_an_incomplete_set_is_refused(left_out: str):
    tensors = dict(Pack(4, 32, zeros="words").make(np.random.default_rng(0), (8, 64)))
    del tensors[f"m.{left_out}"]
    with pytest.raises(CheckpointError, match=r"beside it|the codes for its .* are missing"):
        found_in(tensors, config(num_bits=4, group_size=32, symmetric=False))
