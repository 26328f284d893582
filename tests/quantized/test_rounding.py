"""Rounding to float16 without float16, against numpy's own cast."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from bridge.quantized.affine import Scales
from bridge.quantized.rounding import Range, finish, round_to_float16
from bridge.quantized.view import Scratch
from tests.quantized.stored import assert_same


def everything() -> np.ndarray:
    """Each float16, what lies between it and the next, and the neighbours of both in float32, with both signs."""
    codes = np.arange(0x7BFF, dtype=np.uint16)
    here = codes.view(np.float16).astype(np.float32)
    between = (here + (codes + np.uint16(1)).view(np.float16).astype(np.float32)) / 2
    points = np.concatenate([here, between])
    near = np.concatenate([points, np.nextafter(points, np.float32(np.inf)), np.nextafter(points, np.float32(-np.inf))])
    return np.concatenate([near, -near, np.float32([1e-30, -1e-30, 1e-45, -1e-45, 0.0, -0.0])])[None]


def test_every_exponent_midpoint_and_neighbour():
    values = everything()
    assert np.abs(values).max() < 65504
    expected = values.astype(np.float16).astype(np.float32)
    round_to_float16(values, Scratch(), Range(65504.0))
    assert_same(values, expected)


def test_normal_numbers():
    values = everything()
    values = values[:, (np.abs(values[0]) >= 2.0**-14) | (values[0] == 0)].copy()
    assert {0, 0x80000000} <= set(values.view(np.uint32)[0].tolist())
    expected = values.astype(np.float16).astype(np.float32)
    round_to_float16(values, Scratch(), Range(65504.0, 2.0**-14))
    assert_same(values, expected)


@pytest.mark.parametrize("exponent", [-14, 3])
def test_every_value_between_two_powers(exponent: int):
    values = (np.arange(1 << 23, dtype=np.uint32) + np.uint32(exponent + 127 << 23)).view(np.float32).reshape(1, -1)
    values[:, ::2] *= -1
    expected = values.astype(np.float16).astype(np.float32)
    round_to_float16(values, Scratch(), Range(65504.0, 2.0**-14))
    assert_same(values, expected)


@pytest.mark.parametrize("value", [65504, 65519.99, 65520, 1e9, np.inf, -np.inf, np.nan])
def test_what_is_too_large(value: float):
    values = np.full((1, 4), value, np.float32)
    with np.errstate(over="ignore"):
        expected = values.astype(np.float16).astype(np.float32)
    round_to_float16(values, Scratch(), Range(float("nan") if np.isnan(value) else abs(value)))
    assert_same(values, expected)


def known(factors: list[list[float]], bits: int) -> Range:
    """Of products of codes of so many bits with these scales."""
    return Scales(bits, (range(1), range(2)), (1, 1), 0, np.float32(factors)).within


def test_what_is_known_of_products():
    assert known([[0.5, 2]], 4) == Range(32.0, 0.5)
    assert known([[-3, 2]], 4) == Range(48.0, 2.0)
    assert not known([[np.nan, 1]], 4).largest <= 65504


@pytest.mark.parametrize("out", [np.float32, ml_dtypes.bfloat16, np.float16])
def test_by_way_of_bfloat16(out: type):
    rng = np.random.default_rng(0)
    values = rng.standard_normal((300, 700)).astype(np.float32)
    expected = values.astype(ml_dtypes.bfloat16).astype(np.float32).astype(out)
    got = np.empty(values.shape, out)
    finish(values, got, Scratch(), through=np.dtype(ml_dtypes.bfloat16))
    assert_same(got, expected)
