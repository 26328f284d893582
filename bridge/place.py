"""Arrays onto devices: host memory that JAX takes over without a copy where it can."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np


def canonical(dtype: np.dtype) -> np.dtype:
    """The dtype that JAX gives to `dtype`: without x64 there is no float64 and no int64."""
    return np.dtype(jax.dtypes.canonicalize_dtype(dtype))


def place(array: np.ndarray, sharding: Any = None) -> jax.Array:
    """Hand `array` to JAX. On the CPU the device array is the same memory: drop every other view of it.

    **Arguments:**

    - `array`: C-contiguous, aligned to 64 bytes, of a dtype that JAX has as it is.
    - `sharding`: a `jax.Device` or `jax.sharding.Sharding`; `None` is JAX's default device.
    """
    if sharding is None or not isinstance(sharding, jax.sharding.Sharding) or sharding.is_fully_replicated:
        return jax.device_put(array, sharding)
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])
