"""The activations that config.json files name, by the names that they have there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import jax

_gelu_tanh = partial(jax.nn.gelu, approximate=True)

ACTIVATIONS: Mapping[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": partial(jax.nn.gelu, approximate=False),
    "gelu_new": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
}
