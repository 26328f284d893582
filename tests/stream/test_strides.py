"""Tiled copies against numpy's own, over shapes around the tile's edges."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.stream.strides import copy

DTYPES = [np.int8, np.uint16, ml_dtypes.bfloat16, np.float32, np.float64, np.complex64]


def filled(shape: tuple[int, ...], dtype: type) -> np.ndarray:
    count = int(np.prod(shape))
    return np.arange(count, dtype=np.int64).astype(np.float32).astype(dtype).reshape(shape)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "shape", [(300, 300), (1, 700), (700, 1), (257, 513), (31, 33), (256, 256), (512, 40), (40, 520)]
)
def test_transposed(dtype: type, shape: tuple[int, int]):
    values = filled(shape, dtype)
    out = np.zeros(shape[::-1], dtype)
    copy(out.T, values)
    assert out.tobytes() == values.T.tobytes()


def test_a_cast_on_the_way():
    values = filled((300, 411), ml_dtypes.bfloat16)
    out = np.zeros((411, 300), np.float32)
    copy(out.T, values)
    assert out.tobytes() == values.T.astype(np.float32).tobytes()


@given(
    shape=st.lists(st.sampled_from([1, 2, 3, 16, 70, 290]), min_size=1, max_size=3),
    order=st.randoms(use_true_random=False),
    step=st.sampled_from([1, -1, 2]),
    dtype=st.sampled_from(DTYPES),
)
def test_any_order_of_axes(shape: list[int], order: object, step: int, dtype: type):
    axes = list(range(len(shape)))
    order.shuffle(axes)  # type: ignore[attr-defined]
    values = filled((*shape[:-1], shape[-1] * 2), dtype)[..., :: 2 if step == 2 else 1][..., : shape[-1]]
    memory = np.zeros([shape[axis] for axis in axes], dtype)
    out = memory.transpose(np.argsort(axes))
    if step == -1:
        out = out[::-1]
    copy(out, values)
    assert np.ascontiguousarray(out).tobytes() == np.ascontiguousarray(values).tobytes()
