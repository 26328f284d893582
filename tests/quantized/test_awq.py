"""AWQ, against its own order of columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bridge import CheckpointError
from tests.quantized.contract import Case, FormatContract, Shape
from tests.quantized.plain import BF16, pack, unpack, wild
from tests.quantized.stored import Tensors, found_in

ORDER = [0, 2, 4, 6, 1, 3, 5, 7]  # nibble k of a word is this column


def config(group: int, **fields: Any) -> dict[str, Any]:
    return {"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": group, "version": "gemm", **fields}}


class Awq:
    def __init__(self, group: int, dtype: Any = np.float16, zeros: bool = True) -> None:
        self.group, self.dtype, self.zeros = group, dtype, zeros

    def case(self, name: str) -> Case:
        step = self.group if self.group > 0 else 1
        return Case(name, config(self.group, zero_point=self.zeros), self.make, self.formula, (8, step))

    @staticmethod
    def packed(codes: np.ndarray) -> np.ndarray:
        return pack(codes.reshape(len(codes), -1, 8)[..., ORDER].reshape(codes.shape), 4).view(np.int32)

    @staticmethod
    def unpacked(words: np.ndarray) -> np.ndarray:
        codes = unpack(words, 4, words.shape[1] * 8).reshape(len(words), -1, 8)
        made = np.empty_like(codes)
        made[..., ORDER] = codes
        return made.reshape(len(words), -1)

    def make(self, rng: np.random.Generator, shape: Shape) -> Tensors:
        rows, columns = shape
        grid = (columns // self.group if self.group > 0 else 1, rows)
        made = {"m.qweight": self.packed(rng.integers(0, 16, (columns, rows))), "m.scales": wild(rng, grid, self.dtype)}
        return made | ({"m.qzeros": self.packed(rng.integers(0, 16, grid))} if self.zeros else {})

    def formula(self, tensors: Tensors, shape: Shape) -> np.ndarray:
        g = np.arange(shape[1]) // (self.group if self.group > 0 else shape[1])
        zeros = self.unpacked(tensors["m.qzeros"])[g] if self.zeros else 8
        return ((self.unpacked(tensors["m.qweight"]) - zeros).astype(self.dtype) * tensors["m.scales"][g]).T


class TestAwq(FormatContract):
    cases = (
        Awq(32).case("groups of 32"),
        Awq(128).case("groups of 128"),
        Awq(-1).case("one group"),
        Awq(64, BF16).case("bfloat16"),
        Awq(64, np.float32).case("float32"),
        Awq(64, zeros=False).case("without zero points"),
        Awq(24).case("groups of 24"),
    )


@pytest.mark.parametrize("left_out", ["qweight", "scales", "qzeros"])
def test_an_incomplete_set_is_refused(left_out: str):
    tensors = dict(Awq(32).make(np.random.default_rng(0), (16, 64)))
    del tensors[f"m.{left_out}"]
    with pytest.raises(CheckpointError, match=r"beside it|the codes for its .* are missing"):
        found_in(tensors, config(32))


@pytest.mark.parametrize("version", ["gemv", "gemv_fast", "marlin", "exllama"])
def test_other_kernels_layouts_are_refused(version: str):
    with pytest.raises(CheckpointError, match=f"'{version}', which is not read for AWQ"):
        found_in({}, config(32, version=version))
