"""What every decoder of text does: embeddings, a stack of layers under `jax.lax.scan`, a head; with memory and without.

A family of models makes its `Layer` and its stack. A decoder whose layers differ overrides what walks through them:
`through`, `slots`, `in_order`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from bridge.models._attention import Attention, Look
from bridge.models._cache import Rows, remember, write
from bridge.models._decoder_config import DecoderConfig
from bridge.models._mlp import GatedMLP
from bridge.models._rope import Turn

Note = Callable[[jax.Array, Rows], Any]
"""What to keep of a layer: its output `(seq, d)`, or the keys and values it made."""
Transform = Callable[[jax.Array], jax.Array]
"""Of one token, `(d,)` to `(d,)`."""


class Layer(eqx.Module):
    """Attention, then an MLP; each reads a norm of its input and is added to it."""

    norm1: eqx.nn.RMSNorm
    attention: Attention
    norm2: eqx.nn.RMSNorm
    mlp: Transform

    def __init__(self, config: DecoderConfig, attention: Attention, mlp: Transform) -> None:
        self.norm1, self.norm2 = rms_norm(config), rms_norm(config)
        self.attention, self.mlp = attention, mlp

    def __call__(self, x: jax.Array, look: Look, past: Rows | None) -> tuple[jax.Array, Rows]:
        """`(seq, d)` to `(seq, d)`, and the keys and values to remember."""
        mixed, rows = self.attention(jax.vmap(self.norm1)(x), look, past)
        x = x + mixed
        return x + jax.vmap(self.mlp)(jax.vmap(self.norm2)(x)), rows


def stack(layer: Callable[[jax.Array], Any], *counts: int) -> Callable[[jax.Array], Any]:
    """Makes as many layers of a key, as one module whose arrays have the axes `counts` in front."""
    for _ in counts:
        layer = eqx.filter_vmap(layer)
    return lambda key: layer(jax.random.split(key, counts))


def rms_norm(config: DecoderConfig) -> eqx.nn.RMSNorm:
    """A norm over the width."""
    return eqx.nn.RMSNorm(config.hidden_size, config.rms_norm_eps, use_bias=False)


def attention(config: DecoderConfig, *, key: jax.Array, **options: Any) -> Attention:
    """Attention of the config's sizes; `options` as `Attention` has them."""
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    return Attention(config.hidden_size, heads, kv_heads, config.head_dim, **options, key=key)


def gated_mlp(config: DecoderConfig, *, key: jax.Array, bias: bool = False) -> GatedMLP:
    """An MLP of the config's sizes."""
    return GatedMLP(config.hidden_size, config.intermediate_size, config.hidden_act, bias=bias, key=key)


class Decoder(eqx.Module):
    """A language model: one example a call, a batch by `jax.vmap`.

    **Arguments:** (of the constructor)

    - `config`: what the model carries as `.config`.
    - `layers`: makes the layers of a key, as `stack` does.
    - `norm`: what the last hidden states go through.
    - `key`: for the initial weights.
    """

    embed: eqx.nn.Embedding
    layers: Any  # stacked: each array has an axis (layers,) in front
    norm: Transform
    head: eqx.nn.Linear | None  # None: the embeddings are the head too
    config: Any = eqx.field(static=True)

    def __init__(
        self, config: DecoderConfig, layers: Callable[[jax.Array], Any], norm: Transform, *, key: jax.Array
    ) -> None:
        key_embed, key_layers, key_head = jax.random.split(key, 3)
        self.embed = eqx.nn.Embedding(config.vocab_size, config.hidden_size, key=key_embed)
        self.layers = layers(key_layers)
        self.norm = norm
        head = (config.hidden_size, config.vocab_size)
        self.head = None if config.tie_word_embeddings else eqx.nn.Linear(*head, use_bias=False, key=key_head)
        self.config = config

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """For each token the logits of the next one, shape `(seq, vocab)`, of ids `(seq,)`."""
        x, _ = self.run(tokens, jnp.arange(tokens.shape[0]), None, lambda x, rows: None)
        return jax.vmap(self.logits)(x)

    def hidden_states(self, tokens: jax.Array) -> jax.Array:
        """The embeddings and every layer's hidden states, shape `(layers + 1, seq, d)`, of ids `(seq,)`.

        The last has been through the last norm, as transformers has it.
        """
        positions = jnp.arange(tokens.shape[0])
        last, states = self.run(tokens, positions, None, lambda x, rows: x)
        return jnp.concatenate([self.embedded(tokens, positions)[None], self.in_order(states)[:-1], last[None]])

    def prefill(self, tokens: jax.Array, length: jax.Array, size: int) -> tuple[jax.Array, Any]:
        """The logits of what follows the first `length` of `tokens`, and the memory of them.

        **Arguments:**

        - `tokens`: ids `(seq,)`. What follows the first `length` is padding.
        - `length`: an integer, shape `()`.
        - `size`: how many tokens the memory must hold in all, those to come included.

        **Returns:** logits `(vocab,)`, and a memory for `step`.
        """
        x, rows = self.run(tokens, jnp.arange(tokens.shape[0]), None, lambda x, rows: rows)
        memory = jax.tree.map(lambda slots, rows: remember(rows, length, slots), self.slots(size), rows)
        return self.logits(x[length - 1]), memory

    def step(self, token: jax.Array, position: jax.Array, memory: Any) -> tuple[jax.Array, Any]:
        """The logits of what follows one more token, and the memory with it.

        **Arguments:**

        - `token`: an id, shape `()`. `position`: how many tokens there were before it, shape `()`.
        - `memory`: of those tokens; from `prefill`, or from the step before.
        """
        x, rows = self.run(token[None], position[None], memory, lambda x, rows: rows)
        memory = jax.tree.map(lambda m, r: write(m, r, position), memory, rows, is_leaf=_is_rows)
        return self.logits(x[0]), memory

    def logits(self, x: jax.Array) -> jax.Array:
        """Of a last hidden state `(d,)`: `(vocab,)`."""
        return self.embed.weight @ x if self.head is None else self.head(x)

    def embedded(self, tokens: jax.Array, positions: jax.Array) -> jax.Array:
        """What enters the first layer, `(seq, d)`, of ids and positions `(seq,)`."""
        return jax.vmap(self.embed)(tokens)

    def run(self, tokens: jax.Array, positions: jax.Array, memory: Any, note: Note) -> tuple[jax.Array, Any]:
        """The last hidden states `(seq, d)`, normed, and the notes that were taken of each layer."""
        x, notes = self.through(self.embedded(tokens, positions), positions, memory, note)
        return jax.vmap(self.norm)(x), notes

    def through(self, x: jax.Array, positions: jax.Array, memory: Any, note: Note) -> tuple[jax.Array, Any]:
        """Through all layers. Notes have an axis (layers,) in front, as `memory` has."""
        turn = Turn.at(positions, self.config.rope, self.config.head_dim)
        window = self.config.window
        if not isinstance(window, tuple):
            return scan(self.layers, x, Look(positions, turn, window), memory, note)
        far = jnp.iinfo(jnp.int32).max // 2
        windows = jnp.array([far if each is None else each for each in window], jnp.int32)
        return scan(self.layers, x, Look(positions, turn), memory, note, windows)

    def slots(self, size: int) -> Any:
        """How many tokens each layer remembers, where it may have to look back at `size`; as a memory is built."""
        window = self.config.window
        return min(size, window) if isinstance(window, int) else size

    def in_order(self, states: Any) -> jax.Array:
        """Notes of hidden states as one array, `(layers, seq, d)`."""
        return states


def scan(
    layers: Any, x: jax.Array, look: Look, memory: Any, note: Note, windows: jax.Array | None = None
) -> tuple[jax.Array, Any]:
    """Through a stack of layers, each with its part of the memory, and its window where they differ."""

    def step(x: jax.Array, each: tuple[Any, Any, Any]) -> tuple[jax.Array, Any]:
        layer, past, window = each
        x, rows = layer(x, look if window is None else look._replace(window=window), past)
        return x, note(x, rows)

    return jax.lax.scan(step, x, (layers, memory, windows))


def _is_rows(node: Any) -> bool:
    return isinstance(node, Rows)
