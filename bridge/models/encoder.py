"""What all encoders share: embeddings, a stack of layers under `jax.lax.scan`, a last norm, a pooler, a head.

A text encoder takes tokens and a mask, an image encoder takes an image. Their layers are the same.

    class MyModel(TextEncoder):
        def __init__(self, config, *, key):
            key_embed, key_layers = jax.random.split(key)

            def layer(key):
                keys = jax.random.split(key)
                attention = Attention(config.hidden_size, config.num_attention_heads, key=keys[0])
                mlp = MLP(config.hidden_size, config.intermediate_size, config.hidden_act, key=keys[1])
                return Layer(attention, mlp, lambda: eqx.nn.LayerNorm(config.hidden_size), norm_first=False)

            embed = TextEmbedding(config.hidden_size, tokens=config.vocab_size, key=key_embed)
            super().__init__(config, embed, stack(layer, config.num_hidden_layers)(key_layers))

An encoder whose layers differ overrides `through`. If its layers need more than a mask, it overrides `context`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

import bridge
from bridge.models.attention import AttentionContext
from bridge.models.embedding import check_image
from bridge.models.heads import Classifier, MaskedLM
from bridge.models.layers import Linear, Transform
from bridge.models.layers import stack as stack

__all__ = ["Encoder", "FirstToken", "ImageEncoder", "Layer", "TextEncoder", "scan", "stack"]

Head = Callable[..., jax.Array]
"""A function of hidden states `(seq, d)`."""


class Layer(eqx.Module):
    """Attention, then an MLP. The output of each is added to its input.

    **Arguments:** (of the constructor)

    - `attention`: an `Attention`, or a function of states `(seq, d)` and a context.
    - `mlp`: a function of one token, `(d,)` to `(d,)`.
    - `norm`: a function without arguments that makes a norm; called twice.
    - `norm_first`: true: the inputs of attention and MLP are normed, as in ViT; false: the two sums, as in BERT.
    """

    attention: Callable[[jax.Array, Any], jax.Array]
    norm1: Transform
    mlp: Transform
    norm2: Transform
    norm_first: bool = eqx.field(static=True)

    def __init__(
        self,
        attention: Callable[[jax.Array, Any], jax.Array],
        mlp: Transform,
        norm: Callable[[], Transform],
        *,
        norm_first: bool,
    ) -> None:
        self.attention, self.mlp = attention, mlp
        self.norm1, self.norm2 = norm(), norm()
        self.norm_first = norm_first

    def __call__(self, x: jax.Array, context: Any) -> jax.Array:
        """From states `(seq, d)` to `(seq, d)`."""
        if self.norm_first:
            x = x + self.attention(jax.vmap(self.norm1)(x), context)
            return x + jax.vmap(self.mlp)(jax.vmap(self.norm2)(x))
        x = jax.vmap(self.norm1)(x + self.attention(x, context))
        return jax.vmap(self.norm2)(x + jax.vmap(self.mlp)(x))


class FirstToken(Linear):
    """A linear layer, and perhaps an activation, on the first token's state: `(seq, d)` to `(out_features,)`.

    With `jnp.tanh` it is BERT's pooler; without an activation it is an image classifier.
    """

    activation: Transform | None = eqx.field(static=True)

    def __init__(
        self, in_features: int, out_features: int, activation: Transform | None = None, *, key: jax.Array
    ) -> None:
        super().__init__(in_features, out_features, key=key)
        self.activation = activation

    def __call__(self, x: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """From hidden states `(seq, d)` to `(out_features,)`."""
        y = super().__call__(x[0])
        return y if self.activation is None else self.activation(y)


class Encoder(eqx.Module):
    """The base class of text and image encoders. A call takes one example; use `jax.vmap` for a batch.

    **Arguments:** (of the constructor)

    - `config`: the model's `.config`.
    - `embed`: a function from a call's arguments to the input of the first layer, `(seq, d)`.
    - `layers`: stacked layers, as `stack` makes them.
    - `norm`: the norm of the last hidden states, or `None`.
    - `pooler`: a function from hidden states `(seq, d)` to one vector, or `None`.
    - `head`: a function from hidden states `(seq, d)` to scores, or `None`.
    """

    embed: Any
    layers: Any  # stacked: each array has an axis (layers,) in front
    norm: Transform | None
    pooler: Head | None
    head: Head | None
    config: Any = eqx.field(static=True)

    def __init__(
        self,
        config: Any,
        embed: Any,
        layers: Any,
        *,
        norm: Transform | None = None,
        pooler: Head | None = None,
        head: Head | None = None,
    ) -> None:
        self.config, self.embed, self.layers = config, embed, layers
        self.norm, self.pooler, self.head = norm, pooler, head

    def pooled(self, hidden: jax.Array) -> jax.Array:
        """The pooler's vector of hidden states `(seq, d)`. **Raises:** `bridge.BridgeError` if there is no pooler."""
        if self.pooler is None:
            name = type(self).__name__
            raise bridge.BridgeError(
                f"this {name}", "has no pooler", "Make it with one: Config.from_dict(…, pooler=True)"
            )
        return self.pooler(hidden)

    def logits(self, hidden: jax.Array) -> jax.Array:
        """The head's scores for hidden states `(seq, d)`. **Raises:** `bridge.BridgeError` if there is no head."""
        if self.head is None:
            name = type(self).__name__
            raise bridge.BridgeError(f"this {name}", "has no head", "Make it with one: Config.from_dict(…, head=True)")
        return self.head(hidden)

    def through(self, x: jax.Array, context: Any, *, every: bool) -> tuple[jax.Array, jax.Array | None]:
        """Run all layers: the last states `(seq, d)` and, if `every`, the states of all layers `(layers, seq, d)`."""
        return scan(self.layers, x, context, every=every)

    def run(self, x: jax.Array, context: Any) -> jax.Array:
        """The last hidden states `(seq, d)`, normed if there is a norm. `x`: the output of `embed`."""
        x, _ = self.through(x, context, every=False)
        return x if self.norm is None else jax.vmap(self.norm)(x)

    def run_every(self, x: jax.Array, context: Any) -> jax.Array:
        """The output of `embed` and every layer's states, `(layers + 1, seq, d)`, before the last norm."""
        _, states = self.through(x, context, every=True)
        assert states is not None
        return jnp.concatenate([x[None], states])


class TextEncoder(Encoder):
    """An encoder of text. Arguments of the constructor as for `Encoder`. `config` must have:

    - `max_tokens`: the number of positions, or `None` for no limit.
    - `positions(tokens)`: a function from ids `(seq,)` to the rows of the position embedding.
    """

    __init__ = Encoder.__init__  # said once more for type checkers, which would make one of the fields

    def __call__(
        self, tokens: jax.Array, mask: jax.Array | None = None, token_types: jax.Array | None = None
    ) -> jax.Array:
        """The last layer's hidden states, shape `(seq, d)`.

        **Arguments:**

        - `tokens`: ids, shape `(seq,)`, integer; `seq` at most `config.max_tokens`.
        - `mask`: shape `(seq,)`, bool or integer: false or 0 for padding. `None`: there is no padding.
        - `token_types`: shape `(seq,)`, integer. `None`: all tokens are of type 0.
        """
        return self.run(*self._begun(tokens, mask, token_types))

    def hidden_states(
        self, tokens: jax.Array, mask: jax.Array | None = None, token_types: jax.Array | None = None
    ) -> jax.Array:
        """The embeddings and every layer's hidden states, shape `(layers + 1, seq, d)`. Arguments as for a call."""
        return self.run_every(*self._begun(tokens, mask, token_types))

    @property
    def longest(self) -> int:
        """The largest number of tokens for a text: the number of positions, or the length in training."""
        return self.config.max_tokens or self.config.max_position_embeddings

    def embedded(self, tokens: jax.Array, mask: jax.Array, token_types: jax.Array) -> jax.Array:
        """The input of the first layer: from arguments `(seq,)` to `(seq, d)`; the mask is bool."""
        return self.embed(tokens, self.config.positions(tokens), token_types)

    def logits(self, hidden: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """The head's scores for hidden states `(seq, d)`: `(labels,)` for the text, `(seq, labels)` for tokens, or
        `(seq, vocab)` for masked words. `mask`: the mask of the call, for a head that takes the mean of all tokens.
        **Raises:** `bridge.BridgeError` if there is no head.
        """
        if isinstance(self.head, Classifier):
            return self.head(self.pooled(hidden))
        if isinstance(self.head, MaskedLM):
            return self.head(hidden, self.embed.token.weight)
        return super().logits(hidden)

    def context(self, tokens: jax.Array, mask: jax.Array) -> Any:
        """The context of all layers. Arguments as for `embedded`."""
        return AttentionContext(mask)

    def _begun(self, tokens: jax.Array, mask: jax.Array | None, token_types: jax.Array | None) -> tuple[jax.Array, Any]:
        """The input of the first layer, and the context of all layers."""
        (seq,) = tokens.shape
        name, most = type(self).__name__, self.config.max_tokens
        if most is not None and seq > most:
            raise bridge.BridgeError(
                f"{seq} tokens", f"are more than the {most} that {name} has positions for", "Shorten the input"
            )
        shown = jnp.ones(seq, bool) if mask is None else mask.astype(bool)
        types = jnp.zeros(seq, jnp.int32) if token_types is None else token_types
        return self.embedded(tokens, shown, types), self.context(tokens, shown)


class ImageEncoder(Encoder):
    """An encoder of images. Arguments of the constructor as for `Encoder`. `config` must have:

    - `num_channels`: the channels of an image. `image_size`: its height and width in pixels.
    """

    __init__ = Encoder.__init__

    def __call__(self, image: jax.Array) -> jax.Array:
        """The last layer's hidden states, shape `(tokens, d)`: the class token, if any, then the patches row by row.

        **Arguments:**

        - `image`: shape `(config.num_channels, *config.image_size)`, float, scaled as the checkpoint's
          `preprocessor_config.json` says.
        """
        return self.run(self.embedded(image), AttentionContext())

    def hidden_states(self, image: jax.Array) -> jax.Array:
        """The embeddings and every layer's states before the last norm, shape `(layers + 1, tokens, d)`."""
        return self.run_every(self.embedded(image), AttentionContext())

    def embedded(self, image: jax.Array) -> jax.Array:
        """The input of the first layer, `(tokens, d)`, in the model's dtype."""
        check_image(image, type(self).__name__, (self.config.num_channels, *self.config.image_size))
        return self.embed(image)


def scan(
    layers: Any, x: jax.Array, context: Any, *, every: bool, each: Mapping[str, jax.Array] | None = None
) -> tuple[jax.Array, jax.Array | None]:
    """Run stacked layers.

    **Arguments:**

    - `layers`: stacked layers with the call of `Layer`.
    - `x`: states, shape `(seq, d)`.
    - `context`: the context of all layers, a named tuple.
    - `every`: whether to return the states of every layer.
    - `each`: fields of the context that differ from layer to layer, with a leading axis (layers,).

    **Returns:** the last states `(seq, d)`, and the states of all layers `(layers, seq, d)`, or `None`.
    """

    def step(x: jax.Array, layer: tuple[Any, dict[str, jax.Array]]) -> tuple[jax.Array, jax.Array | None]:
        call, own = layer
        x = call(x, context._replace(**own) if own else context)
        return x, x if every else None

    return jax.lax.scan(step, x, (layers, dict(each or {})))
