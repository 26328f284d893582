"""What encoders of text and of images share: attention that looks both ways."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp

from bridge.models._linear import Linear
from bridge.models._rope import precise


class Attention(eqx.Module):
    """Every token looks at every token that the mask lets through.

    **Arguments:** (of the constructor)

    - `d`: the width of a token. `heads` divides it.
    - `qkv_bias`: whether query, key and value have a bias. `out` always has.
    - `key`: for the initial weights.
    """

    query: Linear
    key: Linear
    value: Linear
    out: Linear
    heads: int = eqx.field(static=True)

    def __init__(self, d: int, heads: int, *, qkv_bias: bool = True, key: jax.Array) -> None:
        *keys, key_out = jax.random.split(key, 4)
        self.query, self.key, self.value = (Linear(d, d, use_bias=qkv_bias, key=k) for k in keys)
        self.out = Linear(d, d, key=key_out)
        self.heads = heads

    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """Shapes `(seq, d)`, `(seq,)` to `(seq, d)`; the mask is bool, false where nobody looks.

        Scores and their softmax are in float32 at least.
        """
        seq, d = x.shape
        q, k, v = (jax.vmap(f)(x).reshape(seq, self.heads, -1) for f in (self.query, self.key, self.value))
        scores = jnp.einsum("qhd,khd->hqk", q, k, preferred_element_type=precise(x.dtype)) * (d // self.heads) ** -0.5
        if mask is not None:
            # The lowest finite number: where a mask hides everything, -inf would make NaN.
            scores = jnp.where(mask[None, None, :], scores, jnp.finfo(scores.dtype).min)
        mixed = jnp.einsum("hqk,khd->qhd", jax.nn.softmax(scores, axis=-1).astype(x.dtype), v)
        return jax.vmap(self.out)(mixed.reshape(seq, d))
