"""Attention to what tokens say and, apart from that, to how far they are apart: DeBERTa's (arXiv 2006.03654).

Distances have embeddings, the same for all layers; each layer makes queries and keys of them, as of tokens.

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
    """What all layers are told.

    - `mask`: bool, `(seq, seq)`, for each token the tokens that it looks at.
    - `distances`: the embeddings of distances, `(rows, d)`, if they have any.
    - `rows`: the row of these for each pair of tokens, `(seq, seq)`: of queries, of keys.
    """

    mask: jax.Array
    distances: jax.Array | None = None
    rows: np.ndarray | None = None

    @classmethod
    def of(cls, mask: jax.Array, distances: Distances | None) -> Self:
        """Of a mask `(seq,)`, false where a token is padding. Padding looks at everything."""
        x, rows = (None, None) if distances is None else distances(len(mask))
        return cls(mask[:, None] & mask[None, :], x, rows)


class Distances(eqx.Module):
    """Embeddings of distances, `(2 * reach, d)`: from the farthest key behind a token to the farthest before it.

    **Arguments:** (of the constructor)

    - `hidden_size`: the width, d.
    - `reach`: rows to either side. What is farther has the last row.
    - `farthest`: the distance that the last row stands for, where far ones share rows; see `distance_buckets`.
    - `norm`: what embeddings go through, if anything.
    - `key`: for the initial weights.
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
        """What a text of `seq` tokens needs of the embeddings, `(rows, d)`, and which each pair has, `(seq, seq)`."""
        distance = np.arange(seq)[:, None] - np.arange(seq)[None, :]
        if self.farthest is not None:
            distance = distance_buckets(distance, self.reach, self.farthest)
        rows = np.clip(distance + self.reach, 0, 2 * self.reach - 1)
        x = self.embedding.weight[rows.min() : rows.max() + 1]
        return x if self.norm is None else jax.vmap(self.norm)(x), rows - rows.min()


def distance_buckets(distance: np.ndarray, reach: int, farthest: int) -> np.ndarray:
    """Distances as far as `reach / 2`, and then by their logarithm, so that `farthest` is the last one below `reach`.

    In float32, as PyTorch computes it.
    """
    exact = reach // 2
    far = np.maximum(np.abs(distance), exact).astype(np.float32) / np.float32(exact)
    whole = np.log(np.float32((farthest - 1) / exact))
    shared = np.ceil(np.log(far) / whole * np.float32(exact - 1)).astype(np.int64) + exact
    return np.where(np.abs(distance) <= exact, distance, shared * np.sign(distance))


class DisentangledAttention(Attention):
    """Attention in both directions whose scores also know what tokens make of their distance.

    **Arguments:** (of the constructor)

    - `hidden_size`: the width of a token, d.
    - `heads`: of queries, keys and values.
    - `kinds`: `"c2p"`: tokens' queries meet distances' keys; `"p2c"`: tokens' keys meet distances' queries.
    - `own`: whether layers of their own make these; else those that make the tokens'.
    - `key_bias`: whether what makes keys has a bias.
    - `key`: for the initial weights.
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
        """How much each token looks at each: of states `(seq, d)`, `(heads, seq, seq)`; rows sum up to 1."""
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
