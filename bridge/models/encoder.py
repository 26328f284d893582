"""What every encoder does: embeddings, a stack of layers under `jax.lax.scan` that look both ways, a last norm, heads.

Encoders of text take tokens and a mask, those of images an image; the layers and the way through them are the same.

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

An encoder whose layers differ, or are told more than a mask, overrides `through` or `context`.
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
"""Of hidden states `(seq, d)`."""


class Layer(eqx.Module):
    """Attention, then an MLP, each added to its input.

    **Arguments:** (of the constructor)

    - `attention`: an `Attention`, or what is called with states `(seq, d)` and a context.
    - `mlp`: of one token.
    - `norm`: makes each of the two norms.
    - `norm_first`: whether attention and MLP read the normed input (ViT); else their sums with it are normed (BERT).
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
        """`(seq, d)` to `(seq, d)`."""
        if self.norm_first:
            x = x + self.attention(jax.vmap(self.norm1)(x), context)
            return x + jax.vmap(self.mlp)(jax.vmap(self.norm2)(x))
        x = jax.vmap(self.norm1)(x + self.attention(x, context))
        return jax.vmap(self.norm2)(x + jax.vmap(self.mlp)(x))


class FirstToken(Linear):
    """A linear layer and an activation of the first token's state: `(seq, d)` to `(out_features,)`.

    BERT's pooler, with `jnp.tanh`, and a classifier of images, without.
    """

    activation: Transform | None = eqx.field(static=True)

    def __init__(
        self, in_features: int, out_features: int, activation: Transform | None = None, *, key: jax.Array
    ) -> None:
        super().__init__(in_features, out_features, key=key)
        self.activation = activation

    def __call__(self, x: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """Of hidden states `(seq, d)`."""
        y = super().__call__(x[0])
        return y if self.activation is None else self.activation(y)


class Encoder(eqx.Module):
    """Of text or of images: one example a call, a batch by `jax.vmap`.

    **Arguments:** (of the constructor)

    - `config`: what the model carries as `.config`.
    - `embed`: makes of a call's arguments what enters the first layer, `(seq, d)`.
    - `layers`: stacked, as `stack` makes them.
    - `norm`: what the last hidden states go through, if anything.
    - `pooler`: of hidden states `(seq, d)` a summary, if the model has one.
    - `head`: of hidden states `(seq, d)` what the model was made to say, if it has one.
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
        """The summary of hidden states `(seq, d)`. **Raises:** `bridge.BridgeError` where the model has no pooler."""
        if self.pooler is None:
            name = type(self).__name__
            raise bridge.BridgeError(
                f"this {name}", "has no pooler", "Make it with one: Config.from_dict(…, pooler=True)"
            )
        return self.pooler(hidden)

    def logits(self, hidden: jax.Array) -> jax.Array:
        """What the head says of hidden states `(seq, d)`. **Raises:** `bridge.BridgeError` where there is no head."""
        if self.head is None:
            name = type(self).__name__
            raise bridge.BridgeError(f"this {name}", "has no head", "Make it with one: Config.from_dict(…, head=True)")
        return self.head(hidden)

    def through(self, x: jax.Array, context: Any, *, every: bool) -> tuple[jax.Array, jax.Array | None]:
        """Through all layers: the last states `(seq, d)`, and those of every layer `(layers, seq, d)` if asked for."""
        return scan(self.layers, x, context, every=every)

    def run(self, x: jax.Array, context: Any) -> jax.Array:
        """The last hidden states `(seq, d)`, normed where there is a norm, of what `embed` gave."""
        x, _ = self.through(x, context, every=False)
        return x if self.norm is None else jax.vmap(self.norm)(x)

    def run_every(self, x: jax.Array, context: Any) -> jax.Array:
        """What `embed` gave and every layer's states, `(layers + 1, seq, d)`; the last before the norm."""
        _, states = self.through(x, context, every=True)
        assert states is not None
        return jnp.concatenate([x[None], states])


class TextEncoder(Encoder):
    """An encoder of text. Arguments of the constructor as for `Encoder`; of `config` is read

    - `max_tokens`: how many tokens there are positions for, or `None`.
    - `positions(tokens)`: of ids `(seq,)` the rows of the position embedding.
    """

    __init__ = Encoder.__init__  # said once more for type checkers, which would make one of the fields

    def __call__(
        self, tokens: jax.Array, mask: jax.Array | None = None, token_types: jax.Array | None = None
    ) -> jax.Array:
        """The last layer's hidden states, shape `(seq, d)`.

        **Arguments:**

        - `tokens`: ids, shape `(seq,)`, integer; `seq` at most `config.max_tokens`.
        - `mask`: shape `(seq,)`, bool or integer: false or 0 where `tokens` is padding. `None` hides nothing.
        - `token_types`: shape `(seq,)`, integer. `None` is all of type 0.
        """
        return self.run(*self._begun(tokens, mask, token_types))

    def hidden_states(
        self, tokens: jax.Array, mask: jax.Array | None = None, token_types: jax.Array | None = None
    ) -> jax.Array:
        """The embeddings and every layer's hidden states, shape `(layers + 1, seq, d)`. Arguments as for a call."""
        return self.run_every(*self._begun(tokens, mask, token_types))

    @property
    def longest(self) -> int:
        """How many tokens a text should have at most: as many as there are positions for, or as in training."""
        return self.config.max_tokens or self.config.max_position_embeddings

    def embedded(self, tokens: jax.Array, mask: jax.Array, token_types: jax.Array) -> jax.Array:
        """What enters the first layer, `(seq, d)`, of arguments `(seq,)` each; the mask is bool."""
        return self.embed(tokens, self.config.positions(tokens), token_types)

    def logits(self, hidden: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """What the head says of hidden states `(seq, d)`: `(labels,)` of the whole text, `(seq, labels)` of tokens,
        `(seq, vocab)` of hidden words. `mask`: that of the call, for a head that takes the mean of all tokens.
        **Raises:** `bridge.BridgeError` where there is no head.
        """
        if isinstance(self.head, Classifier):
            return self.head(self.pooled(hidden))
        if isinstance(self.head, MaskedLM):
            return self.head(hidden, self.embed.token.weight)
        return super().logits(hidden)

    def context(self, tokens: jax.Array, mask: jax.Array) -> Any:
        """What all layers are told. Arguments as for `embedded`."""
        return AttentionContext(mask)

    def _begun(self, tokens: jax.Array, mask: jax.Array | None, token_types: jax.Array | None) -> tuple[jax.Array, Any]:
        """What enters the first layer, and what all layers are told."""
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
    """An encoder of images. Arguments of the constructor as for `Encoder`; of `config` is read

    - `num_channels`, `image_size`: of the image, the latter height and width in pixels.
    """

    __init__ = Encoder.__init__

    def __call__(self, image: jax.Array) -> jax.Array:
        """The last layer's hidden states, shape `(tokens, d)`: the class token, if any, then patches row by row.

        **Arguments:**

        - `image`: shape `(config.num_channels, *config.image_size)`, float, scaled as the checkpoint's
          `preprocessor_config.json` says.
        """
        return self.run(self.embedded(image), AttentionContext())

    def hidden_states(self, image: jax.Array) -> jax.Array:
        """The embeddings and every layer's states, shape `(layers + 1, tokens, d)`: before the last norm."""
        return self.run_every(self.embedded(image), AttentionContext())

    def embedded(self, image: jax.Array) -> jax.Array:
        """What enters the first layer, `(tokens, d)`, in the model's dtype."""
        check_image(image, type(self).__name__, (self.config.num_channels, *self.config.image_size))
        return self.embed(image)


def scan(
    layers: Any, x: jax.Array, context: Any, *, every: bool, each: Mapping[str, jax.Array] | None = None
) -> tuple[jax.Array, jax.Array | None]:
    """Through a stack of layers.

    **Arguments:**

    - `layers`: stacked, each called as `Layer` is.
    - `x`: `(seq, d)`.
    - `context`: what all layers are told, a named tuple.
    - `every`: whether every layer's states are wanted.
    - `each`: fields of the context that differ from layer to layer, with an axis (layers,) in front.

    **Returns:** the last states, `(seq, d)`, and those of every layer, `(layers, seq, d)`, or `None`.
    """

    def step(x: jax.Array, layer: tuple[Any, dict[str, jax.Array]]) -> tuple[jax.Array, jax.Array | None]:
        call, own = layer
        x = call(x, context._replace(**own) if own else context)
        return x, x if every else None

    return jax.lax.scan(step, x, (layers, dict(each or {})))
