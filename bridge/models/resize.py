"""PyTorch's bicubic interpolation, which models use to fit a grid of position embeddings to images of another size.

`jax.image.resize` computes another function: its cubic has a = -0.5, and at a border it rescales the remaining weights.

    positions = bicubic(positions, (16, 16))  # (37, 37, d) -> (16, 16, d)
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from bridge.models.layers import accumulation_dtype

__all__ = ["bicubic", "bicubic_weights"]


def bicubic(grid: jax.Array, size: tuple[int, int], *, antialias: bool = False) -> jax.Array:
    """`torch.nn.functional.interpolate(…, size=size, mode="bicubic", align_corners=False)`, in float32 at least.

    **Arguments:**

    - `grid`: shape `(h, w, d)`.
    - `size`: the new height and width.
    - `antialias`: whether to widen the cubic if the grid shrinks.

    **Returns:** shape `(*size, d)`, with the dtype of the grid.
    """
    dtype = accumulation_dtype(grid.dtype)
    rows, columns = (
        jnp.asarray(bicubic_weights(old, new, antialias=antialias), dtype)
        for old, new in zip(grid.shape[:2], size, strict=True)
    )
    exact = jax.lax.Precision.HIGHEST
    return jnp.einsum("yh,xw,hwd->yxd", rows, columns, grid.astype(dtype), precision=exact).astype(grid.dtype)


def bicubic_weights(old: int, new: int, *, antialias: bool = False) -> NDArray[np.float64]:
    """The weight of each old place in each new place, along one axis: shape `(new, old)`; rows sum to 1.

    Places beyond the border count as the border's place; with `antialias` they are left out.
    """
    scale = old / new
    centers = (np.arange(new) + 0.5) * scale - 0.5
    width = max(scale, 1.0) if antialias else 1.0
    reach = int(np.ceil(2 * width)) + 1
    places = np.floor(centers)[:, None].astype(np.int64) + np.arange(-reach, reach + 1)
    weights = _cubic((places - centers[:, None]) / width, -0.5 if antialias else -0.75)
    if antialias:
        weights = np.where((places >= 0) & (places < old), weights, 0.0)
        weights = weights / weights.sum(axis=1, keepdims=True)
    matrix = np.zeros((new, old))
    np.add.at(matrix, (np.arange(new)[:, None], places.clip(0, old - 1)), weights)
    return matrix


def _cubic(x: NDArray[np.float64], a: float) -> NDArray[np.float64]:
    """Keys' cubic convolution, which is 0 from 2 on."""
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))
