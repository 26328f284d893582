"""MXFP4, gpt-oss's experts: every code with every exponent."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bridge import CheckpointError
from tests.quantized.contract import Case, FormatContract, Shape
from tests.quantized.plain import E2M1, E8M0, halves
from tests.quantized.stored import Tensors, assert_same, found_in, read

GPT_OSS = {"quantization_config": {"quant_method": "mxfp4"}, "dtype": "bfloat16"}


def powers(stored: np.ndarray) -> np.ndarray:
    """Exponents as float32: 255 is infinite, unless the dtype says that it is NaN."""
    with np.errstate(over="ignore"):
        values = np.exp2(stored.view(np.uint8).astype(np.float64) - 127).astype(np.float32)
    return np.where(stored.view(np.uint8) == 255, np.float32(np.nan if stored.dtype == E8M0 else np.inf), values)


def experts(dtype: Any = np.uint8) -> Any:
    def make(rng: np.random.Generator, shape: Shape) -> Tensors:
        count, columns, rows = shape
        blocks = rng.integers(0, 256, (count, rows, columns // 32, 16)).astype(np.uint8)
        return {
            "m.down_proj_blocks": blocks,
            "m.down_proj_scales": rng.integers(0, 256, blocks.shape[:3]).astype(np.uint8).view(dtype),
        }

    return make


def formula(tensors: Tensors, shape: Shape) -> np.ndarray:
    blocks, scales = tensors.values()
    values = np.ldexp(E2M1[halves(blocks)], scales.view(np.uint8)[..., None].astype(np.int32) - 127)
    if scales.dtype == E8M0:
        values[scales.view(np.uint8) == 255] = np.nan
    return values.reshape(*values.shape[:2], -1).swapaxes(1, 2)


class TestExperts(FormatContract):
    cases = (
        Case("gpt-oss", GPT_OSS, experts(), formula, (32, 1), batch=True, key="m.down_proj"),
        Case("exponents with NaN", GPT_OSS, experts(E8M0), formula, (32, 1), batch=True, key="m.down_proj"),
        Case("no config", {}, experts(), formula, (32, 1), batch=True, key="m.down_proj"),
    )


def test_every_code_with_every_exponent():
    scales = np.arange(256, dtype=np.uint8).repeat(16).reshape(1, 256, 16)
    blocks = np.broadcast_to(np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16), (1, 256, 16, 16)).copy()
    tensors = {"m.down_proj_blocks": blocks, "m.down_proj_scales": scales}
    with np.errstate(all="ignore"):
        assert_same(read(found_in(tensors).tensors["m.down_proj"], tensors), formula(tensors, ()))


def test_biases_stay_plain():
    tensors = dict(experts()(np.random.default_rng(0), (2, 64, 10))) | {
        "m.down_proj_bias": np.ones((2, 10), np.float32)
    }
    found = found_in(tensors, GPT_OSS)
    assert found.consumed == {"m.down_proj_blocks", "m.down_proj_scales"}


@pytest.mark.parametrize("left_out", ["m.down_proj_blocks", "m.down_proj_scales"])
def test_an_incomplete_set_is_refused(left_out: str):
    tensors = dict(experts()(np.random.default_rng(0), (2, 64, 10)))
    del tensors[left_out]
    with pytest.raises(CheckpointError, match=r"beside it|the codes for its .* are missing"):
        found_in(tensors, GPT_OSS)
