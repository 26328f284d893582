"""Layers that models of all kinds share: linear layers, MLPs, activations by name; and stacks of layers.

mlp = GatedMLP(config.hidden_size, config.intermediate_size, config.hidden_act, key=key)
layers = stack(make_layer, config.num_hidden_layers)(key)  # one module, an axis (layers,) in front of each array
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

__all__ = ["ACTIVATIONS", "MLP", "GatedMLP", "Linear", "Transform", "accumulation_dtype", "stack"]

Transform = Callable[[jax.Array], jax.Array]
"""A norm or an MLP of one token: a function from `(d,)` to `(d,)`."""

_gelu_tanh = partial(jax.nn.gelu, approximate=True)

ACTIVATIONS: Mapping[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": partial(jax.nn.gelu, approximate=False),
    "gelu_new": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
}
"""The activations, by their names in config.json."""


def accumulation_dtype(dtype: Any) -> Any:
    """The dtype for sums that need more precision than the model's dtype: float32, or float64 for a float64 model.

    ```python
    assert accumulation_dtype(jnp.bfloat16) == jnp.float32
    ```
    """
    return jnp.float64 if dtype == jnp.float64 else jnp.float32


class Linear(eqx.nn.Linear):
    """`equinox.nn.Linear` that adds the bias in float32 (or float64) and rounds once, after the sum.

    PyTorch does the same in bfloat16. With a second rounding before the bias, the states of an encoder are further from
    those of float32 by a tenth, and its pooler's output by a fifth.

    ```python
    y = Linear(3, 2, key=jax.random.key(0))(jnp.ones(3))  # (in_features,) -> (out_features,)
    ```
    """

    def __init__(self, in_features: int, out_features: int, use_bias: bool = True, *, key: jax.Array) -> None:
        super().__init__(in_features, out_features, use_bias, key=key)

    def __call__(self, x: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """From shape `(in_features,)` to `(out_features,)`; dtypes as for `equinox.nn.Linear`."""
        if self.bias is None:
            return super().__call__(x)
        dtype = jnp.result_type(self.weight, x)
        total = jnp.dot(self.weight, x, preferred_element_type=accumulation_dtype(dtype))
        return (total + self.bias.astype(total.dtype)).astype(dtype)


class MLP(eqx.Module):
    """down(act(up(x))).

    **Arguments:** (of the constructor)

    - `hidden_size`, `intermediate_size`: the width d of a token, and the width inside the MLP.
    - `activation`: one of `ACTIVATIONS`.
    - `bias`: whether both linear layers have a bias.
    - `key`: a PRNG key for the initial weights.
    """

    up: Linear
    down: Linear
    activation: str = eqx.field(static=True)

    def __init__(
        self, hidden_size: int, intermediate_size: int, activation: str, *, bias: bool = True, key: jax.Array
    ) -> None:
        key_up, key_down = jax.random.split(key)
        self.up = Linear(hidden_size, intermediate_size, use_bias=bias, key=key_up)
        self.down = Linear(intermediate_size, hidden_size, use_bias=bias, key=key_down)
        self.activation = activation

    def __call__(self, x: jax.Array) -> jax.Array:
        """From one token `(d,)` to `(d,)`."""
        return self.down(ACTIVATIONS[self.activation](self.up(x)))


class GatedMLP(eqx.Module):
    """down(act(gate(x)) * up(x)) (https://arxiv.org/abs/2002.05202). Arguments as for `MLP`; no biases by default."""

    gate: Linear
    up: Linear
    down: Linear
    activation: str = eqx.field(static=True)

    def __init__(
        self, hidden_size: int, intermediate_size: int, activation: str, *, bias: bool = False, key: jax.Array
    ) -> None:
        keys = jax.random.split(key, 3)
        self.gate = Linear(hidden_size, intermediate_size, use_bias=bias, key=keys[0])
        self.up = Linear(hidden_size, intermediate_size, use_bias=bias, key=keys[1])
        self.down = Linear(intermediate_size, hidden_size, use_bias=bias, key=keys[2])
        self.activation = activation

    def __call__(self, x: jax.Array) -> jax.Array:
        """From one token `(d,)` to `(d,)`."""
        gate, up = (y.astype(accumulation_dtype(y.dtype)) for y in (self.gate(x), self.up(x)))
        return self.down((ACTIVATIONS[self.activation](gate) * up).astype(x.dtype))


def stack(layer: Callable[[jax.Array], Any], *counts: int) -> Callable[[jax.Array], Any]:
    """A function that makes many layers from one PRNG key, stacked in one module for `jax.lax.scan`.

    **Arguments:**

    - `layer`: a function that makes one layer from a PRNG key.
    - `counts`: the number of layers; each array gets this leading axis. Several counts make a stack of stacks.

    ```python
    layers = stack(lambda key: Linear(3, 3, key=key), 12)(jax.random.key(0))
    assert layers.weight.shape == (12, 3, 3)
    ```
    """
    for _ in counts:
        layer = eqx.filter_vmap(layer)
    return lambda key: layer(jax.random.split(key, counts))
