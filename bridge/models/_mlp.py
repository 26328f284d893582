"""The MLP of most decoders: a gate that an activation opens (https://arxiv.org/abs/2002.05202)."""

from __future__ import annotations

import equinox as eqx
import jax

from bridge.models._activations import ACTIVATIONS
from bridge.models._linear import Linear
from bridge.models._rope import precise


class GatedMLP(eqx.Module):
    """down(act(gate(x)) * up(x)). `activation`: one of `ACTIVATIONS`."""

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
        """One token, `(d,)` to `(d,)`."""
        gate, up = (y.astype(precise(y.dtype)) for y in (self.gate(x), self.up(x)))
        return self.down((ACTIVATIONS[self.activation](gate) * up).astype(x.dtype))
