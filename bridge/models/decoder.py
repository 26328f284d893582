"""What every decoder of text does: embeddings, a stack of layers under `jax.lax.scan`, a head; with memory and without.

A family of models makes its `Layer` and its stack:

    class MyModel(Decoder):
        def __init__(self, config, *, key):
            def layer(key):
                keys = jax.random.split(key)
                attention = causal_attention(config, key=keys[0])
                return Layer(attention, gated_mlp(config, key=keys[1]), lambda: rms_norm(config))

            super().__init__(config, stack(layer, config.num_hidden_layers), rms_norm(config), key=key)

A decoder whose layers differ overrides what walks through them: `through`, `slots`, `in_order`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from bridge.models._memory import KeyValues, remember, write
from bridge.models.attention import CausalAttention, CausalContext
from bridge.models.config import DecoderConfig as DecoderConfig
from bridge.models.layers import GatedMLP, Linear, Transform
from bridge.models.layers import stack as stack
from bridge.models.rope import RotaryAngles

__all__ = [
    "Collect",
    "Decoder",
    "DecoderConfig",
    "Layer",
    "causal_attention",
    "gated_mlp",
    "rms_norm",
    "scan",
    "stack",
]

Collect = Callable[[jax.Array, KeyValues], Any]
"""What to keep of a layer: of its output `(seq, d)`, and the keys and values that it made."""


class Layer(eqx.Module):
    """Attention, then an MLP; each reads a norm of its input and is added to it.

    **Arguments:** (of the constructor)

    - `attention`: a `CausalAttention`, or what is called as one.
    - `mlp`: of one token.
    - `norm`: makes each of the two norms.
    """

    norm1: Transform
    attention: CausalAttention
    norm2: Transform
    mlp: Transform

    def __init__(self, attention: CausalAttention, mlp: Transform, norm: Callable[[], Transform]) -> None:
        self.norm1, self.norm2 = norm(), norm()
        self.attention, self.mlp = attention, mlp

    def __call__(self, x: jax.Array, context: CausalContext, past: KeyValues | None) -> tuple[jax.Array, KeyValues]:
        """`(seq, d)` to `(seq, d)`, and the keys and values to remember."""
        mixed, new = self.attention(jax.vmap(self.norm1)(x), context, past)
        x = x + mixed
        return x + jax.vmap(self.mlp)(jax.vmap(self.norm2)(x)), new


def rms_norm(config: DecoderConfig, width: int | None = None) -> eqx.nn.RMSNorm:
    """A norm over the width of a token, or another one."""
    return eqx.nn.RMSNorm(config.hidden_size if width is None else width, config.rms_norm_eps, use_bias=False)


def causal_attention(
    config: DecoderConfig, *, qkv_bias: bool = False, out_bias: bool = False, key: jax.Array, **options: Any
) -> CausalAttention:
    """Attention of the config's sizes, without biases by default; `options` as `CausalAttention` has them."""
    return CausalAttention(
        config.hidden_size,
        config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_dim=config.head_dim,
        qkv_bias=qkv_bias,
        out_bias=out_bias,
        key=key,
        **options,
    )


def gated_mlp(config: DecoderConfig, *, key: jax.Array, bias: bool = False) -> GatedMLP:
    """An MLP of the config's sizes."""
    return GatedMLP(config.hidden_size, config.intermediate_size, config.hidden_act, bias=bias, key=key)


class Decoder(eqx.Module):
    """A language model: one example a call, a batch by `jax.vmap`.

    **Arguments:** (of the constructor)

    - `config`: what the model carries as `.config`: a `DecoderConfig`, or what has its `vocab_size`, `hidden_size`,
        `tie_word_embeddings` and `max_position_embeddings`.
    - `layers`: makes the layers of a key, as `stack` does.
    - `norm`: what the last hidden states go through.
    - `key`: for the initial weights.
    """

    embed: eqx.nn.Embedding
    layers: Any  # stacked: each array has an axis (layers,) in front
    norm: Transform
    head: Linear | None  # None: the embeddings are the head too
    config: Any = eqx.field(static=True)

    def __init__(self, config: Any, layers: Callable[[jax.Array], Any], norm: Transform, *, key: jax.Array) -> None:
        key_embed, key_layers, key_head = jax.random.split(key, 3)
        self.embed = eqx.nn.Embedding(config.vocab_size, config.hidden_size, key=key_embed)
        self.layers = layers(key_layers)
        self.norm = norm
        head = (config.hidden_size, config.vocab_size)
        self.head = None if config.tie_word_embeddings else Linear(*head, use_bias=False, key=key_head)
        self.config = config

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """For each token the logits of the next one, shape `(seq, vocab)`, of ids `(seq,)`."""
        x, _ = self.run(tokens, jnp.arange(tokens.shape[0]), None, lambda x, new: None)
        return jax.vmap(self.logits)(x)

    def hidden_states(self, tokens: jax.Array) -> jax.Array:
        """The embeddings and every layer's hidden states, shape `(layers + 1, seq, d)`, of ids `(seq,)`.

        The last has been through the last norm, as transformers has it.
        """
        positions = jnp.arange(tokens.shape[0])
        last, states = self.run(tokens, positions, None, lambda x, new: x)
        return jnp.concatenate([self.embedded(tokens, positions)[None], self.in_order(states)[:-1], last[None]])

    def prefill(self, tokens: jax.Array, length: jax.Array, size: int) -> tuple[jax.Array, Any]:
        """The logits of what follows the first `length` of `tokens`, and the memory of them.

        **Arguments:**

        - `tokens`: ids `(seq,)`. What follows the first `length` is padding.
        - `length`: an integer, shape `()`.
        - `size`: how many tokens the memory must hold in all, those to come included.

        **Returns:** logits `(vocab,)`, and a memory for `step`.
        """
        x, new = self.run(tokens, jnp.arange(tokens.shape[0]), None, lambda x, new: new)
        memory = jax.tree.map(lambda slots, new: remember(new, length, slots), self.slots(size), new)
        return self.logits(x[length - 1]), memory

    def step(self, token: jax.Array, position: jax.Array, memory: Any) -> tuple[jax.Array, Any]:
        """The logits of what follows one more token, and the memory with it.

        **Arguments:**

        - `token`: an id, shape `()`. `position`: how many tokens there were before it, shape `()`.
        - `memory`: of those tokens; from `prefill`, or from the step before.
        """
        x, new = self.run(token[None], position[None], memory, lambda x, new: new)
        memory = jax.tree.map(lambda m, n: write(m, n, position), memory, new, is_leaf=_is_key_values)
        return self.logits(x[0]), memory

    def logits(self, x: jax.Array) -> jax.Array:
        """Of a last hidden state `(d,)`: `(vocab,)`."""
        return self.embed.weight @ x if self.head is None else self.head(x)

    def embedded(self, tokens: jax.Array, positions: jax.Array) -> jax.Array:
        """What enters the first layer, `(seq, d)`, of ids and positions `(seq,)`."""
        return jax.vmap(self.embed)(tokens)

    def run(self, tokens: jax.Array, positions: jax.Array, memory: Any, collect: Collect) -> tuple[jax.Array, Any]:
        """The last hidden states `(seq, d)`, normed, and what was collected of each layer."""
        x, collected = self.through(self.embedded(tokens, positions), positions, memory, collect)
        return jax.vmap(self.norm)(x), collected

    def through(self, x: jax.Array, positions: jax.Array, memory: Any, collect: Collect) -> tuple[jax.Array, Any]:
        """Through all layers. What is collected has an axis (layers,) in front, as `memory` has."""
        angles = RotaryAngles.at(positions, self.config.rope, self.config.head_dim)
        window = self.config.window
        if not isinstance(window, tuple):
            return scan(self.layers, x, CausalContext(positions, angles, window), memory, collect)
        far = jnp.iinfo(jnp.int32).max // 2
        windows = jnp.array([far if each is None else each for each in window], jnp.int32)
        return scan(self.layers, x, CausalContext(positions, angles), memory, collect, {"window": windows})

    def slots(self, size: int) -> Any:
        """How many tokens each layer remembers, where it may have to look back at `size`; as a memory is built."""
        window = self.config.window
        return min(size, window) if isinstance(window, int) else size

    def in_order(self, states: Any) -> jax.Array:
        """Hidden states that were collected, as one array `(layers, seq, d)`."""
        return states


def scan(
    layers: Any,
    x: jax.Array,
    context: CausalContext,
    memory: Any,
    collect: Collect,
    each: Mapping[str, jax.Array] | None = None,
) -> tuple[jax.Array, Any]:
    """Through a stack of layers, each with its part of the memory.

    **Arguments:**

    - `layers`: stacked, each called as `Layer` is.
    - `x`: `(seq, d)`.
    - `context`: what all layers are told.
    - `memory`: of all layers, or `None`.
    - `collect`: what to keep of each.
    - `each`: fields of the context that differ from layer to layer, with an axis (layers,) in front.

    **Returns:** `(seq, d)`, and what was collected, stacked.
    """

    def step(x: jax.Array, layer: tuple[Any, Any, dict[str, jax.Array]]) -> tuple[jax.Array, Any]:
        call, past, own = layer
        x, new = call(x, context._replace(**own), past)
        return x, collect(x, new)

    return jax.lax.scan(step, x, (layers, memory, dict(each or {})))


def _is_key_values(node: Any) -> bool:
    return isinstance(node, KeyValues)
