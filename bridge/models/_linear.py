"""A linear layer whose product and bias are rounded together."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp

from bridge.models._rope import precise


class Linear(eqx.nn.Linear):
    """`equinox.nn.Linear`, with the bias added in float32 at least, and one rounding after it.

    In bfloat16 PyTorch does the same. Rounded after the product and again after the bias, the states of an encoder are
    further from those of float32 by a tenth, and what its pooler gives by a fifth.
    """

    def __init__(self, in_features: int, out_features: int, use_bias: bool = True, *, key: jax.Array) -> None:
        super().__init__(in_features, out_features, use_bias, key=key)

    def __call__(self, x: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """Shape `(in_features,)` to `(out_features,)`; dtypes as with `equinox.nn.Linear`."""
        if self.bias is None:
            return super().__call__(x)
        dtype = jnp.result_type(self.weight, x)
        total = jnp.dot(self.weight, x, preferred_element_type=precise(dtype))
        return (total + self.bias.astype(total.dtype)).astype(dtype)
