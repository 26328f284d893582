"""The linear layer of the models: one rounding for product and bias, and otherwise Equinox's."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from bridge.models.layers import Linear


def layer(kind: type[eqx.nn.Linear], dtype: jnp.dtype) -> eqx.nn.Linear:
    made = kind(64, 48, key=jax.random.key(0))
    return jax.tree.map(lambda x: (8 * x).astype(dtype), made)


def test_in_bfloat16_product_and_bias_are_rounded_together():
    ours, x = layer(Linear, jnp.bfloat16), jax.random.normal(jax.random.key(1), (64,)).astype(jnp.bfloat16)
    weight, bias, values = (np.asarray(array, np.float64) for array in (ours.weight, ours.bias, x))
    exact = weight @ values + bias
    once, twice = exact.astype(jnp.bfloat16), (weight @ values).astype(jnp.bfloat16) + bias.astype(jnp.bfloat16)
    assert (once != twice).sum() > 5
    np.testing.assert_array_equal(np.asarray(eqx.filter_jit(ours)(x)), once)


def test_in_float32_it_is_equinoxs_layer():
    ours, theirs = layer(Linear, jnp.float32), layer(eqx.nn.Linear, jnp.float32)
    x = jax.random.normal(jax.random.key(1), (64,))
    np.testing.assert_array_equal(ours(x), theirs(x))
