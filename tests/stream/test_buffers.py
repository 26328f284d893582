"""Memory that JAX takes over without a copy."""

from __future__ import annotations

import jax
import ml_dtypes
import numpy as np
import pytest

from bridge.place.work import place
from bridge.stream.buffers import as_bytes, empty


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, np.int8, np.bool_, np.complex64])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (5, 0, 2), (1000, 1000), (2048, 1024)])
def test_aligned_contiguous_writable(shape: tuple[int, ...], dtype: type):
    array = empty(shape, np.dtype(dtype))
    assert (array.shape, array.dtype) == (shape, np.dtype(dtype))
    assert array.flags.c_contiguous
    assert array.flags.writeable
    assert array.nbytes == 0 or array.ctypes.data % 64 == 0
    assert as_bytes(array).nbytes == array.nbytes


def test_jax_takes_all_over():
    arrays = [empty((nbytes,), np.dtype(np.uint8)) for nbytes in (64, 1 << 20, 5 << 20)]
    for array in arrays:
        array[:] = 7
    addresses = [array.ctypes.data for array in arrays]
    placed = place(arrays)
    assert [array.unsafe_buffer_pointer() for array in placed] == addresses
    del arrays, array
    for array in placed:
        assert int(array.sum(dtype=jax.numpy.uint32)) == 7 * array.nbytes
