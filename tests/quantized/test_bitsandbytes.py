"""bitsandbytes, against the formula: blocks of the flattened weight, the upper half of a byte first."""

from __future__ import annotations

import json
from math import prod
from typing import Any

import numpy as np
import pytest

from bridge import CheckpointError
from bridge.quantized import find
from tests.quantized.contract import Case, FormatContract, Shape
from tests.quantized.plain import BF16, halves
from tests.quantized.stored import Tensors, assert_same, columns, found_in, read

BNB = {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
INT8 = {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}}
STATE = "m.weight.quant_state.bitsandbytes__"


class Four:
    def __init__(
        self, kind: str = "nf4", block: int = 64, nested: int = 0, storage: Any = np.uint8, **said: Any
    ) -> None:
        self.kind, self.block, self.nested, self.storage, self.said = kind, block, nested, storage, said

    def make(self, rng: np.random.Generator, shape: Shape) -> Tensors:
        count = shape[0] * shape[1]
        codes = np.zeros(-(-count // (2 * np.dtype(self.storage).itemsize)) * np.dtype(self.storage).itemsize, np.uint8)
        codes[:] = rng.integers(0, 256, len(codes))
        blocks = -(-count // self.block)
        state = {"quant_type": self.kind, "blocksize": self.block, "dtype": "bfloat16", "shape": list(shape)}
        made = {
            "m.weight": codes.view(self.storage).reshape(-1, 1),
            "m.weight.absmax": (rng.standard_normal(blocks) * 10.0 ** rng.integers(-9, 3, blocks)).astype(np.float32),
            "m.weight.quant_map": rng.standard_normal(16).astype(np.float32),
        }
        if self.nested:
            made["m.weight.absmax"] = rng.integers(0, 256, blocks).astype(np.uint8)
            made["m.weight.nested_absmax"] = rng.random(-(-blocks // self.nested)).astype(np.float32)
            made["m.weight.nested_quant_map"] = rng.standard_normal(256).astype(np.float32)
            state |= {"nested_blocksize": self.nested, "nested_dtype": "float32", "nested_offset": 0.0123456}
        made[STATE + self.kind] = np.frombuffer(json.dumps(state | self.said).encode(), np.uint8)
        return made

    def formula(self, tensors: Tensors, shape: Shape) -> np.ndarray:
        count = shape[0] * shape[1]
        values = tensors["m.weight.quant_map"][
            halves(tensors["m.weight"].reshape(-1).view(np.uint8), high_first=True)[:count]
        ]
        largest = tensors["m.weight.absmax"]
        if self.nested:
            outer = np.repeat(tensors["m.weight.nested_absmax"], self.nested)[: len(largest)]
            largest = tensors["m.weight.nested_quant_map"][largest] * outer + np.float32(0.0123456)
        return (values * np.repeat(largest, self.block)[:count]).reshape(shape)


def int8(rng: np.random.Generator, shape: Shape) -> Tensors:
    return {
        "m.weight": rng.integers(-128, 128, shape).astype(np.int8),
        "m.SCB": rng.standard_normal(shape[0]).astype(np.float32),
        "m.weight_format": np.zeros((), np.uint8),
    }


def int8_formula(tensors: Tensors, shape: Shape) -> np.ndarray:
    return (tensors["m.weight"].astype(np.float32) * tensors["m.SCB"][:, None]) * np.float32(7.874015718698502e-3)


def case(name: str, four: Four, config: Any = BNB) -> Case:
    return Case(name, config, four.make, four.formula)


class TestBitsandbytes(FormatContract):
    cases = (
        case("nf4", Four()),
        case("fp4", Four("fp4")),
        case("blocks of 256", Four(block=256)),
        case("nested", Four(nested=256)),
        case("nested, no config", Four("fp4", nested=4), {}),
        case("stored as bfloat16", Four(storage=BF16)),
        case("stored as float32", Four(storage=np.float32)),
        Case("int8", INT8, int8, int8_formula),
        Case("int8, no config", {}, int8, int8_formula),
    )


@pytest.mark.parametrize("shape", [(130,), (3, 5, 64), (2, 3, 4, 5)], ids=str)
def test_any_number_of_axes(shape: Shape):
    """The blocks do not care; a box is cut out of the rows it runs through."""
    four = Four()
    tensors = four.make(np.random.default_rng(0), (1, prod(shape)))
    state = {"quant_type": "nf4", "blocksize": 64, "shape": list(shape)}
    tensors = {**tensors, f"{STATE}nf4": np.frombuffer(json.dumps(state).encode(), np.uint8)}
    tensor = found_in(tensors).tensors["m.weight"]
    expected = four.formula(tensors, (1, prod(shape))).reshape(shape)
    assert_same(read(tensor, tensors), expected)
    box = tuple(range(n // 3, n) for n in shape)
    assert_same(read(tensor, tensors, box=box), expected[tuple(slice(r.start, r.stop) for r in box)].copy())


def test_all_json_is_asked_for_at_once():
    tensors = {f"{i}{k[1:]}": v for i in range(5) for k, v in Four().make(np.random.default_rng(0), (8, 64)).items()}
    assert find(*columns(tensors)).needs == tuple(f"{i}.weight.quant_state.bitsandbytes__nf4" for i in range(5))


def test_the_shape_is_the_jsons():
    tensors = {
        f"{i}{k[1:]}": v
        for i, s in enumerate([(8, 64), (64, 8)])
        for k, v in Four().make(np.random.default_rng(0), s).items()
    }
    assert [t.form.shape for t in found_in(tensors).tensors.values()] == [(8, 64), (64, 8)]


@pytest.mark.parametrize("left_out", ["weight", "weight.absmax", "weight.quant_map", f"{STATE[2:]}nf4"])
def test_an_incomplete_set_is_refused(left_out: str):
    tensors = dict(Four().make(np.random.default_rng(0), (8, 64)))
    del tensors[f"m.{left_out}"]
    with pytest.raises(CheckpointError, match=r"beside it|the codes for its .* are missing"):
        found_in(tensors, BNB)


def test_a_column_cut_reads_the_rows():
    """The blocks run across rows: there is no shorter way to say which bytes."""
    tensors = Four().make(np.random.default_rng(0), (8, 64))
    tensor = found_in(tensors).tensors["m.weight"]
    assert tensor.form.view.boxes((range(2, 4), range(32, 64)))[:2] == [(range(80, 128), range(1)), (range(2, 4),)]
    assert read(tensor, tensors, box=(range(2, 4), range(32, 64))).shape == (2, 32)
