"""Causal attention: its core, which knows neither weights nor positions' encoding, and the module most decoders use."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from bridge.models._cache import Rows, held
from bridge.models._linear import Linear
from bridge.models._rope import Turn, precise


class Look(NamedTuple):
    """From where the tokens of a call look, and how far.

    - `positions`: `(seq,)`, one after the other.
    - `turn`: how positions turn heads, where they do.
    - `window`: how many tokens back each sees, itself included. `None`: all.
    """

    positions: jax.Array
    turn: Turn | None = None
    window: int | jax.Array | None = None


def attend(q: jax.Array, new: Rows, look: Look, past: Rows | None, *, scale: float | jax.Array) -> jax.Array:
    """Every token looks at itself and at those before it. Scores and their softmax are in float32 at least.

    **Arguments:**

    - `q`: `(seq, heads, head_dim)`. Neighbouring heads share keys and values where there are fewer of these.
    - `new`: keys and values of the same tokens, `(seq, kv_heads, head_dim)`.
    - `look`: where the tokens stand, and how far they see.
    - `past`: the memory of the tokens before them.
    - `scale`: what scores are multiplied by.

    **Returns:** `(seq, heads * head_dim)`.
    """
    seq, _, head_dim = q.shape
    kv_heads = new.k.shape[1]
    dtype = precise(q.dtype)
    q = q.reshape(seq, kv_heads, -1, head_dim)
    # Old and new stay apart, so that the memory is read where it lies and not copied.
    parts = [new] if past is None else [past, new]
    at = [look.positions] if past is None else [held(past.slots, look.positions[0]), look.positions]
    scores = jnp.concatenate(
        [jnp.einsum("qhgd,khd->hgqk", q, rows.k, preferred_element_type=dtype) for rows in parts], axis=-1
    )
    seen = _seen(look.positions[:, None], jnp.concatenate(at)[None, :], look.window)
    weights = jax.nn.softmax(jnp.where(seen[None, None], scores * scale, -jnp.inf), axis=-1).astype(q.dtype)
    shares = jnp.split(weights, [weights.shape[-1] - seq], axis=-1)[-len(parts) :]
    mixed = sum(
        jnp.einsum("hgqk,khd->qhgd", share, rows.v, preferred_element_type=dtype)
        for share, rows in zip(shares, parts, strict=True)
    )
    return jnp.asarray(mixed, q.dtype).reshape(seq, -1)


def _seen(here: jax.Array, there: jax.Array, window: int | jax.Array | None) -> jax.Array:
    """Whether a token at `here` sees the one at `there`; a negative place holds nothing."""
    seen = (there >= 0) & (there <= here)
    return seen if window is None else seen & (there > here - window)


class Attention(eqx.Module):
    """Attention over rotary positions, with as many key and value heads as the checkpoint has.

    **Arguments:** (of the constructor)

    - `hidden_size`: the width, d.
    - `heads`, `kv_heads`: of queries; of keys and values. `head_dim`: the width of each.
    - `qkv_bias`, `out_bias`: whether the projections in and out have biases.
    - `head_norm`: makes the norm over `head_dim` that queries and keys go through before they are turned.
    - `scale`: of the scores; 1 / √head_dim unless it is given.
    """

    query: Linear
    key: Linear
    value: Linear
    out: Linear
    query_norm: Callable[[jax.Array], jax.Array] | None
    key_norm: Callable[[jax.Array], jax.Array] | None
    heads: int = eqx.field(static=True)
    kv_heads: int = eqx.field(static=True)
    scale: float = eqx.field(static=True)

    def __init__(
        self,
        hidden_size: int,
        heads: int,
        kv_heads: int,
        head_dim: int,
        *,
        qkv_bias: bool = False,
        out_bias: bool = False,
        head_norm: Callable[[], Callable[[jax.Array], jax.Array]] | None = None,
        scale: float | None = None,
        key: jax.Array,
    ) -> None:
        keys = jax.random.split(key, 4)
        outs = (heads * head_dim, kv_heads * head_dim, kv_heads * head_dim)
        self.query, self.key, self.value = (
            Linear(hidden_size, out, use_bias=qkv_bias, key=k) for out, k in zip(outs, keys[:3], strict=True)
        )
        self.out = Linear(heads * head_dim, hidden_size, use_bias=out_bias, key=keys[3])
        self.query_norm, self.key_norm = (None, None) if head_norm is None else (head_norm(), head_norm())
        self.heads, self.kv_heads = heads, kv_heads
        self.scale = head_dim**-0.5 if scale is None else scale

    def __call__(self, x: jax.Array, look: Look, past: Rows | None) -> tuple[jax.Array, Rows]:
        """`(seq, d)` to `(seq, d)`, and the keys and values to remember."""
        q = self._heads(self.query, x, self.heads, self.query_norm, look.turn)
        k = self._heads(self.key, x, self.kv_heads, self.key_norm, look.turn)
        new = Rows(k, self._heads(self.value, x, self.kv_heads, None, None))
        mixed = attend(q, new, look, past, scale=self.scale)
        return jax.vmap(self.out)(mixed), new

    def _heads(
        self,
        project: Linear,
        x: jax.Array,
        heads: int,
        norm: Callable[[jax.Array], jax.Array] | None,
        turn: Turn | None,
    ) -> jax.Array:
        """`(seq, d)` to `(seq, heads, head_dim)`."""
        y = jax.vmap(project)(x).reshape(x.shape[0], heads, -1)
        y = y if norm is None else jax.vmap(jax.vmap(norm))(y)
        return y if turn is None else turn(y)
