"""Packed weights on the device: codes and scales stay as they are stored, and values are made where they are used.

A layer that keeps its stored tensors (`quantized="keep"`) calls one of these in its forward pass; under `jax.jit` the
values live as long as the product needs them. Bits are those that a load gives, but for results below 2⁻¹²⁶: XLA makes
these 0 where it computes in float32.
"""
# pyright: basic

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from bridge._errors import CheckpointError
from bridge.quantized.floats import scaled_pairs


def dequantize(
    codes: jax.Array,
    scales: jax.Array,
    zeros: jax.Array | None = None,
    *,
    block: tuple[int, int] | None = None,
    columns: int | None = None,
    dtype: jax.typing.DTypeLike = jnp.bfloat16,
) -> jax.Array:
    """The values of packed weights; the dtype of the codes says the format. Jitted; works under `jax.jit`, `lax.scan`.

    **Arguments:**

    - `codes`: float8_e4m3fn, shape `(…, out, in)`; int32 with eight codes of 4 bits in each word as in
        compressed-tensors, shape `(…, out, words)`; or uint8, MXFP4 as in gpt-oss, shape `(…, groups, 16)`.
    - `scales`: the stored scales: one for each block, group or row.
    - `zeros`: for int32 codes: the zero points as integers, or `None`.
    - `block`: for float8 codes: the rows and columns of a block. `None`: for each axis 128 if the scales fit
        that, otherwise the number of codes divided by that of scales, rounded up.
    - `columns`: for int32 codes: the number of columns, if the last word of a row is not full.
    - `dtype`: the dtype of the result.

    **Returns:** the values. Their bits are those of a load, except for results below 2⁻¹²⁶. For MXFP4 the shape is
    `(…, 32 · groups)`; for the experts of gpt-oss, its last two axes are in the reverse order of the weight's.

    **Raises:** `CheckpointError` for codes of another dtype.

    ```python
    codes = jnp.ones((256, 128), jnp.float8_e4m3fn)
    weight = bridge.quantized.dequantize(codes, jnp.array([[0.5], [2.0]]))  # scales of blocks of 128 x 128
    assert weight.shape == (256, 128) and weight[0, 0] == 0.5
    ```
    """
    if codes.dtype == jnp.float8_e4m3fn:
        rows, width = map(_extent, codes.shape[-2:], scales.shape[-2:])
        return dequantize_fp8(codes, scales, block=block or (rows, width), dtype=dtype)
    if codes.dtype == jnp.int32:
        return dequantize_int4(codes, scales, zeros, columns=columns, dtype=dtype)
    if codes.dtype == jnp.uint8:
        return dequantize_mxfp4(codes, scales, dtype=dtype)
    raise CheckpointError(
        f"codes of {codes.dtype}",
        "are not read by dequantize, which takes float8_e4m3fn, int32 and uint8",
        "Load the values with quantized='dequantize'",
    )


def _extent(count: int, scales: int) -> int:
    return 128 if -(-count // 128) == scales else -(-count // scales)


@partial(jax.jit, static_argnames=("block", "dtype"))
def dequantize_fp8(
    codes: jax.Array, scales: jax.Array, *, block: tuple[int, int], dtype: jax.typing.DTypeLike = jnp.bfloat16
) -> jax.Array:
    """Floats of 8 bits times the scales of their blocks.

    **Arguments:**

    - `codes`: float8_e4m3fn, shape `(…, out, in)`.
    - `scales`: shape `(…, ⌈out / block[0]⌉, ⌈in / block[1]⌉)`; a last block may be cut short.
    - `block`: rows and columns of a block.
    - `dtype`: of the result.

    **Returns:** shape `(…, out, in)`.
    """
    factors = _spread(scales.astype(jnp.float32), codes.shape[-2], block[0], -2)
    factors = _spread(factors, codes.shape[-1], block[1], -1)
    return (codes.astype(jnp.float32) * factors).astype(dtype)


@partial(jax.jit, static_argnames=("columns", "dtype"))
def dequantize_int4(
    words: jax.Array,
    scales: jax.Array,
    zeros: jax.Array | None = None,
    *,
    columns: int | None = None,
    dtype: jax.typing.DTypeLike = jnp.bfloat16,
) -> jax.Array:
    """`(code − zero) · scale` in the dtype of the scales, of integers of 4 bits as compressed-tensors packs them.

    **Arguments:**

    - `words`: int32, shape `(…, out, words)`: eight codes along the rows, the earliest in the lowest bits.
    - `scales`: shape `(…, out, groups)`.
    - `zeros`: the zero point of each group as an integer, of the shape of `scales`; absent: 8 for all.
    - `columns`: how many codes a row has, where that is not all that its words hold.
    - `dtype`: of the result.

    **Returns:** shape `(…, out, columns)`.
    """
    shifts = jnp.arange(0, 32, 4, dtype=jnp.uint32)
    raw = lax.bitcast_convert_type(words, jnp.uint32)[..., None]
    codes = ((raw >> jnp.expand_dims(shifts, tuple(range(words.ndim)))) & jnp.uint32(15)).astype(jnp.int32)
    codes = codes.reshape(*words.shape[:-1], -1)[..., :columns]
    count = codes.shape[-1]
    group = -(-count // scales.shape[-1])
    if zeros is None:
        difference = codes - 8
    else:
        difference = codes - _spread(zeros.astype(jnp.int32), count, group, -1)
    values = difference.astype(jnp.float32) * _spread(scales.astype(jnp.float32), count, group, -1)
    # A barrier: else XLA may leave the rounding out, as it does between two casts.
    return lax.optimization_barrier(values.astype(scales.dtype)).astype(dtype)


@partial(jax.jit, static_argnames=("dtype",))
def dequantize_mxfp4(blocks: jax.Array, scales: jax.Array, *, dtype: jax.typing.DTypeLike = jnp.bfloat16) -> jax.Array:
    """MXFP4 as gpt-oss stores it. Bits are looked up, not computed: subnormal ones are right too.

    **Arguments:**

    - `blocks`: uint8, shape `(…, groups, 16)`: two codes a byte, the lower half first.
    - `scales`: uint8, shape `(…, groups)`: exponents.
    - `dtype`: of the result.

    **Returns:** shape `(…, 32 · groups)`. The experts of gpt-oss mean its last two axes the other way round.
    """
    table = jnp.asarray(_products())  # (256, 16)
    codes = jnp.stack([blocks & jnp.uint8(15), blocks >> jnp.uint8(4)], axis=-1)
    codes = codes.reshape(*blocks.shape[:-1], 2 * blocks.shape[-1])
    bits = table.reshape(-1)[scales[..., None].astype(jnp.int32) * 16 + codes.astype(jnp.int32)]
    bits = bits.reshape(*blocks.shape[:-2], -1)
    if jnp.dtype(dtype) == jnp.float32:
        return lax.bitcast_convert_type(bits.astype(jnp.uint32) << jnp.uint32(16), jnp.float32)
    return lax.bitcast_convert_type(bits, jnp.bfloat16).astype(dtype)


def _products() -> np.ndarray:
    """For each exponent and each code the product, as the bits of a bfloat16."""
    pairs = scaled_pairs("power").view(np.uint16).reshape(256, 256, 2)
    return np.ascontiguousarray(pairs[:, :16, 0])


def _spread(values: jax.Array, count: int, block: int, axis: int) -> jax.Array:
    """One value a block to one an element."""
    return lax.slice_in_dim(jnp.repeat(values, block, axis=axis), 0, count, axis=axis)
