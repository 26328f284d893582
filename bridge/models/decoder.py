"""What all decoders of text share: embeddings, a stack of layers under `jax.lax.scan`, a head; with and without memory.

A model makes its layers and stacks them:

    class MyModel(Decoder):
        def __init__(self, config, *, key):
            def layer(key):
                keys = jax.random.split(key)
                attention = causal_attention(config, key=keys[0])
                return Layer(attention, gated_mlp(config, key=keys[1]), lambda: rms_norm(config))

            super().__init__(config, stack(layer, config.num_hidden_layers), rms_norm(config), key=key)

A decoder whose layers differ overrides `through`, `slots` and `in_order`.
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
"""What to keep of a layer: a function of its output `(seq, d)` and of the keys and values that it made."""


class Layer(eqx.Module):
    """Attention, then an MLP. Each gets its input normed, and its output is added to its input.

    **Arguments:** (of the constructor)

    - `attention`: a `CausalAttention`, or a module with the same call.
    - `mlp`: a function of one token, `(d,)` to `(d,)`.
    - `norm`: a function without arguments that makes a norm; called twice.
    """

    norm1: Transform
    attention: CausalAttention
    norm2: Transform
    mlp: Transform

    def __init__(self, attention: CausalAttention, mlp: Transform, norm: Callable[[], Transform]) -> None:
        self.norm1, self.norm2 = norm(), norm()
        self.attention, self.mlp = attention, mlp

    def __call__(self, x: jax.Array, context: CausalContext, past: KeyValues | None) -> tuple[jax.Array, KeyValues]:
        """From states `(seq, d)` to `(seq, d)` and the keys and values to remember."""
        mixed, new = self.attention(jax.vmap(self.norm1)(x), context, past)
        x = x + mixed
        return x + jax.vmap(self.mlp)(jax.vmap(self.norm2)(x)), new


def rms_norm(config: DecoderConfig, width: int | None = None) -> eqx.nn.RMSNorm:
    """A norm over `width`, by default the width of a token."""
    return eqx.nn.RMSNorm(config.hidden_size if width is None else width, config.rms_norm_eps, use_bias=False)


def causal_attention(
    config: DecoderConfig, *, qkv_bias: bool = False, out_bias: bool = False, key: jax.Array, **options: Any
) -> CausalAttention:
    """Attention with the config's sizes, by default without biases; `options` are those of `CausalAttention`."""
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
    """A gated MLP with the config's sizes."""
    return GatedMLP(config.hidden_size, config.intermediate_size, config.hidden_act, bias=bias, key=key)


class Decoder(eqx.Module):
    """A language model. A call takes one example; use `jax.vmap` for a batch.

    **Arguments:** (of the constructor)

    - `config`: the model's `.config`: a `DecoderConfig`, or an object with its `vocab_size`, `hidden_size`,
        `tie_word_embeddings` and `max_position_embeddings`.
    - `layers`: a function that makes the layers from a PRNG key, as `stack` returns it.
    - `norm`: the norm of the last hidden states.
    - `key`: a PRNG key for the initial weights.
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
        """The logits of the next token after each token: from ids `(seq,)` to `(seq, vocab)`."""
        x, _ = self.run(tokens, jnp.arange(tokens.shape[0]), None, lambda x, new: None)
        return jax.vmap(self.logits)(x)

    def hidden_states(self, tokens: jax.Array) -> jax.Array:
        """The embeddings and every layer's hidden states: from ids `(seq,)` to `(layers + 1, seq, d)`.

        The last layer's states are those after the last norm, as in transformers.
        """
        positions = jnp.arange(tokens.shape[0])
        last, states = self.run(tokens, positions, None, lambda x, new: x)
        return jnp.concatenate([self.embedded(tokens, positions)[None], self.in_order(states)[:-1], last[None]])

    def prefill(self, tokens: jax.Array, length: jax.Array, size: int) -> tuple[jax.Array, Any]:
        """The logits of the token after the first `length` tokens, and a memory of these tokens.

        **Arguments:**

        - `tokens`: ids, shape `(seq,)`. The ids after the first `length` are padding.
        - `length`: an integer, shape `()`.
        - `size`: how many tokens the memory must be able to hold, including those of later steps.

        **Returns:** logits `(vocab,)`, and a memory for `step`.
        """
        x, new = self.run(tokens, jnp.arange(tokens.shape[0]), None, lambda x, new: new)
        memory = jax.tree.map(lambda slots, new: remember(new, length, slots), self.slots(size), new)
        return self.logits(x[length - 1]), memory

    def step(self, token: jax.Array, position: jax.Array, memory: Any) -> tuple[jax.Array, Any]:
        """The logits of the token after one more token, and the memory with that token.

        **Arguments:**

        - `token`: an id, shape `()`. `position`: the number of tokens before it, shape `()`.
        - `memory`: the memory of these tokens, from `prefill` or from the previous `step`.
        """
        x, new = self.run(token[None], position[None], memory, lambda x, new: new)
        memory = jax.tree.map(lambda m, n: write(m, n, position), memory, new, is_leaf=_is_key_values)
        return self.logits(x[0]), memory

    def logits(self, x: jax.Array) -> jax.Array:
        """From one last hidden state `(d,)` to `(vocab,)`."""
        return self.embed.weight @ x if self.head is None else self.head(x)

    def embedded(self, tokens: jax.Array, positions: jax.Array) -> jax.Array:
        """The input of the first layer: from ids and positions `(seq,)` to `(seq, d)`."""
        return jax.vmap(self.embed)(tokens)

    def run(self, tokens: jax.Array, positions: jax.Array, memory: Any, collect: Collect) -> tuple[jax.Array, Any]:
        """The last hidden states `(seq, d)`, normed, and what `collect` kept of each layer."""
        x, collected = self.through(self.embedded(tokens, positions), positions, memory, collect)
        return jax.vmap(self.norm)(x), collected

    def through(self, x: jax.Array, positions: jax.Array, memory: Any, collect: Collect) -> tuple[jax.Array, Any]:
        """Run all layers. The collected values have a leading axis (layers,), as `memory` has."""
        angles = RotaryAngles.at(positions, self.config.rope, self.config.head_dim)
        window = self.config.window
        if not isinstance(window, tuple):
            return scan(self.layers, x, CausalContext(positions, angles, window), memory, collect)
        far = jnp.iinfo(jnp.int32).max // 2
        windows = jnp.array([far if each is None else each for each in window], jnp.int32)
        return scan(self.layers, x, CausalContext(positions, angles), memory, collect, {"window": windows})

    def slots(self, size: int) -> Any:
        """How many tokens each layer must remember of `size` tokens; a pytree with the structure of the memory."""
        window = self.config.window
        return min(size, window) if isinstance(window, int) else size

    def in_order(self, states: Any) -> jax.Array:
        """The collected hidden states as one array `(layers, seq, d)`."""
        return states


def scan(
    layers: Any,
    x: jax.Array,
    context: CausalContext,
    memory: Any,
    collect: Collect,
    each: Mapping[str, jax.Array] | None = None,
) -> tuple[jax.Array, Any]:
    """Run stacked layers, each with its part of the memory.

    **Arguments:**

    - `layers`: stacked layers with the call of `Layer`.
    - `x`: states, shape `(seq, d)`.
    - `context`: the context of all layers.
    - `memory`: the memory of all layers, or `None`.
    - `collect`: what to keep of each layer.
    - `each`: fields of the context that differ from layer to layer, with a leading axis (layers,).

    **Returns:** states `(seq, d)`, and the collected values, stacked.
    """

    def step(x: jax.Array, layer: tuple[Any, Any, dict[str, jax.Array]]) -> tuple[jax.Array, Any]:
        call, past, own = layer
        x, new = call(x, context._replace(**own), past)
        return x, collect(x, new)

    return jax.lax.scan(step, x, (layers, memory, dict(each or {})))


def _is_key_values(node: Any) -> bool:
    return isinstance(node, KeyValues)
