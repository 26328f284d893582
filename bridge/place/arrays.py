"""Host memory that becomes device arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

Device = Any
"""A `jax.Device`, which is no type that a checker knows."""


def canonical(dtype: np.dtype) -> np.dtype:
    """The dtype that JAX gives to `dtype`: without x64 there is no float64 and no int64."""
    return np.dtype(jax.dtypes.canonicalize_dtype(dtype))


def place(arrays: Sequence[np.ndarray], device: Any = None) -> list[jax.Array]:
    """Hand `arrays` to JAX, in one call: one for each would take twice the time.

    On the CPU the device arrays are the same memory: drop every other view of it.

    **Arguments:**

    - `arrays`: each C-contiguous, aligned to 64 bytes, of a dtype that JAX has as it is.
    - `device`: a `jax.Device` or a `jax.sharding.Sharding` of one, for all or one for each; `None` is JAX's default
        device.
    """
    return jax.device_put(list(arrays), device)


def in_default_memory(sharding: jax.sharding.Sharding | None) -> bool:
    """Whether arrays lie where devices compute; in the host's memory beside that, nothing is put together."""
    if sharding is None or sharding.memory_kind is None:
        return True
    return all(device.default_memory().kind == sharding.memory_kind for device in sharding.addressable_devices)
