"""Attention: causal, with a memory of earlier tokens, and in both directions. Heads may share keys and values.

A layer of attention takes the tokens' states and a context. All layers get the same context, except for fields that
differ from layer to layer (`bridge.models.decoder.scan`, `bridge.models.encoder.scan`). Scores and their softmax are
computed in float32, or in float64 for a float64 model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from bridge.models._memory import KeyValues as KeyValues
from bridge.models._memory import held
from bridge.models.layers import Linear, Transform, accumulation_dtype
from bridge.models.rope import RotaryAngles

__all__ = [
    "Attention",
    "AttentionContext",
    "CausalAttention",
    "CausalContext",
    "KeyValues",
    "causal_dot_product_attention",
    "dot_product_attention",
]


class CausalContext(NamedTuple):
    """The positions of a call's tokens, and how many tokens back they attend to.

    - `positions`: shape `(seq,)`, consecutive numbers.
    - `angles`: the rotary angles of the positions; `None` for no rotation.
    - `window`: to how many tokens each attends, counted back from itself. `None`: all.
    - `scale`: the factor of the scores; `None` for the layer's own.
    """

    positions: jax.Array
    angles: RotaryAngles | None = None
    window: int | jax.Array | None = None
    scale: float | jax.Array | None = None


class AttentionContext(NamedTuple):
    """Which tokens each token attends to, in both directions.

    - `mask`: bool, shape `(seq,)`: false for tokens that no token attends to. Or shape `(seq, seq)`: for each token,
        true for the tokens that it attends to. `None`: all.
    - `angles`: the rotary angles of the positions; `None` for no rotation.
    - `window`: to how many tokens on either side each attends. `None`: all.
    - `bias`: a term that is added to the scores, shape `(heads, seq, seq)`, for example for relative positions.
    """

    mask: jax.Array | None = None
    angles: RotaryAngles | None = None
    window: int | jax.Array | None = None
    bias: jax.Array | None = None


def causal_dot_product_attention(
    q: jax.Array, new: KeyValues, context: CausalContext, past: KeyValues | None, *, scale: float | jax.Array
) -> jax.Array:
    """Attention of every token to itself and the tokens before it.

    **Arguments:**

    - `q`: queries, shape `(seq, heads, head_dim)`. If there are fewer `kv_heads`, neighbouring heads share one.
    - `new`: keys and values of the same tokens, shape `(seq, kv_heads, head_dim)`.
    - `context`: the positions of the tokens, and how many tokens back they attend to.
    - `past`: the memory of the tokens before them, or `None`.
    - `scale`: the factor of the scores, unless the context has one.

    **Returns:** shape `(seq, heads * head_dim)`.
    """
    seq = q.shape[0]
    scale = scale if context.scale is None else context.scale
    # Old and new stay apart, so that the memory is read where it lies and not copied.
    parts = [new] if past is None else [past, new]
    at = [context.positions] if past is None else [held(past.slots, context.positions[0]), context.positions]
    here, there = context.positions[:, None], jnp.concatenate(at)[None, :]
    seen = (there >= 0) & (there <= here)  # a negative place holds nothing
    if context.window is not None:
        seen &= there > here - context.window
    weights = _softmax(jnp.where(seen[None, None], _scores(q, parts) * scale, -jnp.inf), q.dtype)
    shares = jnp.split(weights, [weights.shape[-1] - seq], axis=-1)[-len(parts) :]
    return _mixed(shares, parts, q.dtype)


def dot_product_attention(q: jax.Array, kv: KeyValues, context: AttentionContext, *, scale: float) -> jax.Array:
    """Attention of every token to the tokens that the context allows.

    **Arguments:**

    - `q`: queries, shape `(seq, heads, head_dim)`. If there are fewer `kv_heads`, neighbouring heads share one.
    - `kv`: keys and values of the same tokens, shape `(seq, kv_heads, head_dim)`.
    - `context`: which tokens each token attends to.
    - `scale`: the factor of the scores, before the context's bias is added.

    **Returns:** shape `(seq, heads * head_dim)`.
    """
    return _mixed([_shares(q, kv, context, scale)], [kv], q.dtype)


def _shares(q: jax.Array, kv: KeyValues, context: AttentionContext, scale: float) -> jax.Array:
    """How much each token looks at each, `(kv_heads, heads of each, seq, seq)`."""
    scores = _scores(q, [kv]) * scale
    if context.bias is not None:
        scores = scores + context.bias.reshape(scores.shape).astype(scores.dtype)
    seen = None if context.mask is None else jnp.atleast_2d(context.mask)
    if context.window is not None:
        at = jnp.arange(q.shape[0])
        near = jnp.abs(at[:, None] - at[None, :]) <= context.window
        seen = near if seen is None else near & seen
    if seen is not None:
        # The lowest finite number: where a mask hides everything, -inf would make NaN.
        scores = jnp.where(seen[None, None], scores, jnp.finfo(scores.dtype).min)
    return _softmax(scores, q.dtype)


def _scores(q: jax.Array, parts: list[KeyValues]) -> jax.Array:
    """`(kv_heads, heads of each, seq, tokens of all parts)`."""
    seq, _, head_dim = q.shape
    q = q.reshape(seq, parts[0].k.shape[1], -1, head_dim)
    dtype = accumulation_dtype(q.dtype)
    return jnp.concatenate(
        [jnp.einsum("qhgd,khd->hgqk", q, part.k, preferred_element_type=dtype) for part in parts], axis=-1
    )


def _softmax(scores: jax.Array, dtype: jnp.dtype) -> jax.Array:
    return jax.nn.softmax(scores, axis=-1).astype(dtype)


def _mixed(shares: list[jax.Array], parts: list[KeyValues], dtype: jnp.dtype) -> jax.Array:
    """The values of all parts, mixed by their shares, `(seq, heads * head_dim)`."""
    mixed = sum(
        jnp.einsum("hgqk,khd->qhgd", share, part.v, preferred_element_type=accumulation_dtype(dtype))
        for share, part in zip(shares, parts, strict=True)
    )
    mixed = jnp.asarray(mixed, dtype)
    return mixed.reshape(mixed.shape[0], -1)


class Attention(eqx.Module):
    """Attention in both directions, for encoders: projections to heads, attention, and a projection back.

    **Arguments:** (of the constructor)

    - `hidden_size`: the width d of a token.
    - `heads`, `kv_heads`: the number of query heads, and of key and value heads; by default they are equal.
    - `head_dim`: the width of a head, by default d / heads.
    - `qkv_bias`, `out_bias`: whether the projections to heads and back have biases.
    - `head_norm`: a function that makes a norm over `head_dim`, for queries and keys, before the rotation.
    - `scale`: the factor of the scores, by default 1 / √head_dim.
    - `key`: a PRNG key for the initial weights.

    ```python
    attention = Attention(32, 4, key=jax.random.key(0))
    mask = jnp.array([True, True, True, False])  # the last is padding
    y = attention(jnp.ones((4, 32)), AttentionContext(mask))  # (seq, d) -> (seq, d)
    ```
    """

    query: Linear
    key: Linear
    value: Linear
    out: Linear
    query_norm: Transform | None
    key_norm: Transform | None
    heads: int = eqx.field(static=True)
    kv_heads: int = eqx.field(static=True)
    scale: float = eqx.field(static=True)

    def __init__(
        self,
        hidden_size: int,
        heads: int,
        *,
        kv_heads: int | None = None,
        head_dim: int | None = None,
        qkv_bias: bool = True,
        out_bias: bool = True,
        head_norm: Callable[[], Transform] | None = None,
        scale: float | None = None,
        key: jax.Array,
    ) -> None:
        head_dim = hidden_size // heads if head_dim is None else head_dim
        kv_heads = heads if kv_heads is None else kv_heads
        keys = jax.random.split(key, 4)
        outs = (heads * head_dim, kv_heads * head_dim, kv_heads * head_dim)
        self.query, self.key, self.value = (
            Linear(hidden_size, out, use_bias=qkv_bias, key=k) for out, k in zip(outs, keys[:3], strict=True)
        )
        self.out = Linear(heads * head_dim, hidden_size, use_bias=out_bias, key=keys[3])
        self.query_norm, self.key_norm = (None, None) if head_norm is None else (head_norm(), head_norm())
        self.heads, self.kv_heads = heads, kv_heads
        self.scale = head_dim**-0.5 if scale is None else scale

    def __call__(self, x: jax.Array, context: AttentionContext) -> jax.Array:
        """From states `(seq, d)` to `(seq, d)`."""
        q, kv = self.project(x, context.angles)
        return jax.vmap(self.out)(dot_product_attention(q, kv, context, scale=self.scale))

    def weights(self, x: jax.Array, context: AttentionContext) -> jax.Array:
        """The attention weights of states `(seq, d)`: shape `(heads, seq, seq)`; the last axis sums to 1."""
        q, kv = self.project(x, context.angles)
        return _shares(q, kv, context, self.scale).reshape(self.heads, len(x), len(x))

    def project(self, x: jax.Array, angles: RotaryAngles | None) -> tuple[jax.Array, KeyValues]:
        """Queries `(seq, heads, head_dim)`, keys and values of states `(seq, d)`, normed and rotated."""
        q = self._heads(self.query, x, self.heads, self.query_norm, angles)
        k = self._heads(self.key, x, self.kv_heads, self.key_norm, angles)
        return q, KeyValues(k, self._heads(self.value, x, self.kv_heads, None, None))

    def _heads(
        self, project: Linear, x: jax.Array, heads: int, norm: Transform | None, angles: RotaryAngles | None
    ) -> jax.Array:
        """`(seq, d)` to `(seq, heads, head_dim)`."""
        y = jax.vmap(project)(x).reshape(x.shape[0], heads, -1)
        y = y if norm is None else jax.vmap(jax.vmap(norm))(y)
        return y if angles is None else angles(y)


class CausalAttention(Attention):
    """Attention of each token to itself and the tokens before it, for decoders. Arguments as for `Attention`.

    ```python
    attention = CausalAttention(32, 4, kv_heads=2, key=jax.random.key(0))
    y, new = attention(jnp.ones((5, 32)), CausalContext(jnp.arange(5)), None)  # (seq, d) -> (seq, d)
    assert new.k.shape == (5, 2, 8)  # to be remembered
    ```
    """

    __init__ = Attention.__init__  # said once more for type checkers, which would make one of the fields

    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride]: it takes a memory and gives one
        self, x: jax.Array, context: CausalContext, past: KeyValues | None
    ) -> tuple[jax.Array, KeyValues]:
        """From states `(seq, d)` to `(seq, d)` and the keys and values to remember. `past`: the memory, or `None`."""
        q, new = self.project(x, context.angles)
        mixed = causal_dot_product_attention(q, new, context, past, scale=self.scale)
        return jax.vmap(self.out)(mixed), new
