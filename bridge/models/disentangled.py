"""DeBERTa's attention (arXiv 2006.03654): separate terms for the tokens' states and for their distance.

Distances have embeddings, which all layers share. Each layer projects them to queries and keys, as it does tokens.

    context = DisentangledContext.of(mask, Distances(32, reach=512, key=key))
    y = DisentangledAttention(32, 4, ("c2p", "p2c"), key=key)(x, context)  # (seq, d) -> (seq, d)
"""

from __future__ import annotations

from typing import Any, NamedTuple, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from bridge.models.attention import Attention, AttentionContext, KeyValues, dot_product_attention
from bridge.models.layers import Linear, Transform, accumulation_dtype

__all__ = ["DisentangledAttention", "DisentangledContext", "Distances", "distance_buckets"]


class DisentangledContext(NamedTuple):
    """The context of all layers.

    - `mask`: bool, shape `(seq, seq)`: for each token, true for the tokens that it attends to.
    - `distances`: the embeddings of distances, shape `(rows, d)`, or `None`.
    - `rows`: the row of the embeddings for each pair of tokens, shape `(seq, seq)`: queries first, then keys.
    """

    mask: jax.Array
    distances: jax.Array | None = None
    rows: np.ndarray | None = None

    @classmethod
    def of(cls, mask: jax.Array, distances: Distances | None) -> Self:
        """The context for a mask `(seq,)`, which is false for padding. Padding attends to all tokens."""
        x, rows = (None, None) if distances is None else distances(len(mask))
        return cls(mask[:, None] & mask[None, :], x, rows)


class Distances(eqx.Module):
    """Embeddings of distances, shape `(2 * reach, d)`: from the farthest key after a token to the farthest before it.

    **Arguments:** (of the constructor)

    - `hidden_size`: the width d of an embedding.
    - `reach`: the number of rows for each direction. Farther tokens get the last row.
    - `farthest`: the distance of the last row, if far distances share rows as in `distance_buckets`; or `None`.
    - `norm`: the norm of the embeddings, or `None`.
    - `key`: a PRNG key for the initial weights.
    """

    embedding: eqx.nn.Embedding
    norm: Transform | None
    reach: int = eqx.field(static=True)
    farthest: int | None = eqx.field(static=True)

    def __init__(
        self,
        hidden_size: int,
        *,
        reach: int,
        farthest: int | None = None,
        norm: Transform | None = None,
        key: jax.Array,
    ) -> None:
        self.embedding = eqx.nn.Embedding(2 * reach, hidden_size, key=key)
        self.norm, self.reach, self.farthest = norm, reach, farthest

    def __call__(self, seq: int) -> tuple[jax.Array, np.ndarray]:
        """The embeddings `(rows, d)` that a text of `seq` tokens needs, and the row of each pair, `(seq, seq)`."""
        distance = np.arange(seq)[:, None] - np.arange(seq)[None, :]
        if self.farthest is not None:
            distance = distance_buckets(distance, self.reach, self.farthest)
        rows = np.clip(distance + self.reach, 0, 2 * self.reach - 1)
        x = self.embedding.weight[rows.min() : rows.max() + 1]
        return x if self.norm is None else jax.vmap(self.norm)(x), rows - rows.min()


def distance_buckets(distance: np.ndarray, reach: int, farthest: int) -> np.ndarray:
    """Buckets of distances, with the sign of the distance.

    A distance up to `reach / 2` is its own bucket. Farther distances share buckets on a logarithmic scale, on which
    `farthest - 1` gets bucket `reach - 1`. Computed in float32, as PyTorch does.
    """
    exact = reach // 2
    far = np.maximum(np.abs(distance), exact).astype(np.float32) / np.float32(exact)
    whole = np.log(np.float32((farthest - 1) / exact))
    shared = np.ceil(np.log(far) / whole * np.float32(exact - 1)).astype(np.int64) + exact
    return np.where(np.abs(distance) <= exact, distance, shared * np.sign(distance))


class DisentangledAttention(Attention):
    """Attention in both directions with additional scores for the distance of two tokens.

    **Arguments:** (of the constructor)

    - `hidden_size`: the width d of a token.
    - `heads`: the number of heads of queries, keys and values.
    - `kinds`: the additional scores: `"c2p"`: tokens' queries with distances' keys; `"p2c"`: tokens' keys with
        distances' queries.
    - `own`: whether distances have projections of their own; otherwise they share those of the tokens.
    - `key_bias`: whether the projections to keys have a bias.
    - `key`: a PRNG key for the initial weights.
    """

    pos_key: Linear | None
    pos_query: Linear | None
    kinds: tuple[str, ...] = eqx.field(static=True)

    def __init__(
        self,
        hidden_size: int,
        heads: int,
        kinds: tuple[str, ...],
        *,
        own: bool = True,
        key_bias: bool = True,
        key: jax.Array,
    ) -> None:
        keys = jax.random.split(key, 4)
        super().__init__(hidden_size, heads, scale=(hidden_size // heads * (1 + len(kinds))) ** -0.5, key=keys[0])
        self.key = Linear(hidden_size, hidden_size, use_bias=key_bias, key=keys[1])
        self.pos_key, self.pos_query = (
            Linear(hidden_size, hidden_size, use_bias=bias, key=k) if own and kind in kinds else None
            for kind, bias, k in zip(("c2p", "p2c"), (key_bias, True), keys[2:], strict=True)
        )
        self.kinds = kinds

    def __call__(self, x: jax.Array, context: Any) -> jax.Array:
        """`(seq, d)` to `(seq, d)`. `context`: a `DisentangledContext`."""
        q, kv = self.project(x, None)
        return jax.vmap(self.out)(dot_product_attention(q, kv, self.told(q, kv, context), scale=self.scale))

    def weights(self, x: jax.Array, context: Any) -> jax.Array:
        """The attention weights of states `(seq, d)`: shape `(heads, seq, seq)`; the last axis sums to 1."""
        return super().weights(x, self.told(*self.project(x, None), context))

    def told(self, q: jax.Array, kv: KeyValues, context: DisentangledContext) -> AttentionContext:
        """The mask, and what is added to the scores of each pair of tokens for their distance."""
        bias = None
        if context.distances is not None and context.rows is not None:
            if "c2p" in self.kinds:
                keys = self._heads(self.pos_key or self.key, context.distances, self.heads, None, None)
                bias = _of_pairs(q, keys, context.rows)
            if "p2c" in self.kinds:
                queries = self._heads(self.pos_query or self.query, context.distances, self.heads, None, None)
                met = jnp.swapaxes(_of_pairs(kv.k, queries, context.rows.T), 1, 2)
                bias = met if bias is None else bias + met
        return AttentionContext(context.mask, bias=None if bias is None else bias * self.scale)


def _of_pairs(tokens: jax.Array, distances: jax.Array, rows: np.ndarray) -> jax.Array:
    """Products of each token, `(seq, heads, head_dim)`, with its distance to each, `(heads, seq, seq)`."""
    scores = jnp.einsum("shd,rhd->hsr", tokens, distances, preferred_element_type=accumulation_dtype(tokens.dtype))
    return jnp.take_along_axis(scores, jnp.asarray(rows)[None], axis=-1, mode="clip")
