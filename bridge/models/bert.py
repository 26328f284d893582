"""BERT: an encoder of text, bidirectional attention over absolute positions, norms after the residuals.

    model = bridge.models.from_pretrained("sentence-transformers/all-MiniLM-L6-v2")
    hidden = model(tokens, mask)  # (seq,), (seq,) -> (seq, d); a batch by jax.vmap

For inference: dropout is left out. All layers are one stacked module under `jax.lax.scan`, which compiles one layer
whatever their number.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import equinox as eqx
import jax
import jax.numpy as jnp

import bridge
from bridge.models._activations import ACTIVATIONS
from bridge.models._config import Fields, read_json
from bridge.models._encoder import Attention
from bridge.models._linear import Linear
from bridge.models._spellings import only_read

# Fields that only training reads, and leftovers of BERT's first release that nothing ever read.
_UNUSED = frozenset(
    {
        *("attention_probs_dropout_prob", "classifier_dropout", "directionality", "hidden_dropout_prob"),
        *("pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers", "pooler_size_per_head"),
        "pooler_type",
    }
)


@dataclass(frozen=True)
class Config:
    """What makes one BERT differ from another. The names are those of config.json.

    - `hidden_size`: the width, d. `num_attention_heads` divides it. `intermediate_size`: the width inside an MLP.
    - `vocab_size`, `max_position_embeddings`, `type_vocab_size`: rows of the embeddings.
    - `hidden_act`: one of `ACTIVATIONS`. `layer_norm_eps`: what layer norms add to the variance.
    - `pooler`: whether there is the layer that `Bert.pooled` needs. This no config.json says.
    """

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int = 2
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-12
    pooler: bool = True

    MODEL_TYPES: ClassVar[tuple[str, ...]] = ("bert",)

    @property
    def max_tokens(self) -> int:
        """How many tokens there are positions for."""
        return self.max_position_embeddings

    def positions(self, tokens: jax.Array) -> jax.Array:
        """The row of the position embedding that each token takes, shape `(seq,)` to `(seq,)`."""
        return jnp.arange(tokens.shape[0])

    @classmethod
    def from_dict(
        cls, data: Mapping[str, Any], *, pooler: bool = True, ignore: Collection[str] = (), name: str = "config.json"
    ) -> Self:
        """The config of what a config.json says.

        **Arguments:**

        - `data`: the fields, as transformers writes them.
        - `pooler`: whether the model shall have the pooler. Checkpoints of `BertForMaskedLM` have none.
        - `ignore`: fields that are known to change nothing.
        - `name`: what messages call the file.

        **Raises:** `bridge.CheckpointError` that names a field which is absent, unknown, or of a value that is not
        implemented.
        """
        fields = Fields(data, name=name)
        config = cls(**cls._taken(fields), pooler=pooler)
        if config.hidden_size % config.num_attention_heads:
            fields.refuse("num_attention_heads", config.num_attention_heads, f"a divisor of {config.hidden_size}")
        fields.done(_UNUSED, ignore)
        return config

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], *, pooler: bool = True, ignore: Collection[str] = ()) -> Self:
        """The config of a config.json file. Arguments and errors as for `from_dict`."""
        return cls.from_dict(read_json(path), pooler=pooler, ignore=ignore, name=os.fspath(path))

    @classmethod
    def _taken(cls, fields: Fields) -> dict[str, Any]:
        """What the fields say, checked one by one."""
        fields.one_of("model_type", cls.MODEL_TYPES, default=cls.MODEL_TYPES[0])
        fields.one_of("position_embedding_type", ["absolute"], default="absolute")
        for flag in ("is_decoder", "is_encoder_decoder", "add_cross_attention"):
            fields.one_of(flag, [False], default=False)
        fields.one_of("pruned_heads", [{}], default={})
        return {
            "vocab_size": fields.count("vocab_size"),
            "hidden_size": fields.count("hidden_size"),
            "num_hidden_layers": fields.count("num_hidden_layers"),
            "num_attention_heads": fields.count("num_attention_heads"),
            "intermediate_size": fields.count("intermediate_size"),
            "max_position_embeddings": fields.count("max_position_embeddings"),
            "type_vocab_size": fields.count("type_vocab_size", default=cls.type_vocab_size),
            "hidden_act": fields.one_of("hidden_act", list(ACTIVATIONS), default=cls.hidden_act),
            "layer_norm_eps": fields.number("layer_norm_eps", default=cls.layer_norm_eps),
        }


class Embed(eqx.Module):
    """Token, position and token type, each an embedding, added up and normalised."""

    token: eqx.nn.Embedding
    position: eqx.nn.Embedding
    type: eqx.nn.Embedding
    norm: eqx.nn.LayerNorm

    def __init__(self, config: Config, *, key: jax.Array) -> None:
        rows = (config.vocab_size, config.max_position_embeddings, config.type_vocab_size)
        keys = jax.random.split(key, 3)
        self.token, self.position, self.type = (
            eqx.nn.Embedding(n, config.hidden_size, key=k) for n, k in zip(rows, keys, strict=True)
        )
        self.norm = eqx.nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def __call__(self, tokens: jax.Array, types: jax.Array, positions: jax.Array) -> jax.Array:
        """Shapes `(seq,)` each to `(seq, d)`."""
        x = jax.vmap(self.token)(tokens) + jax.vmap(self.type)(types) + jax.vmap(self.position)(positions)
        return jax.vmap(self.norm)(x)


class Layer(eqx.Module):
    """Attention, then an MLP; each added to its input and normalised."""

    attention: Attention
    norm1: eqx.nn.LayerNorm
    up: Linear
    down: Linear
    norm2: eqx.nn.LayerNorm
    activation: str = eqx.field(static=True)

    def __init__(self, config: Config, *, key: jax.Array) -> None:
        keys = jax.random.split(key, 3)
        self.attention = Attention(config.hidden_size, config.num_attention_heads, key=keys[0])
        self.norm1 = eqx.nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.up = Linear(config.hidden_size, config.intermediate_size, key=keys[1])
        self.down = Linear(config.intermediate_size, config.hidden_size, key=keys[2])
        self.norm2 = eqx.nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.activation = config.hidden_act

    def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        """Shapes `(seq, d)`, `(seq,)` to `(seq, d)`."""
        x = jax.vmap(self.norm1)(x + self.attention(x, mask))
        inner = ACTIVATIONS[self.activation](jax.vmap(self.up)(x))
        return jax.vmap(self.norm2)(x + jax.vmap(self.down)(inner))


class Bert(eqx.Module):
    """The encoder. One example a call; a batch by `jax.vmap`.

    **Arguments:** (of the constructor)

    - `config`: a `Config`, which the model carries.
    - `key`: for the initial weights.
    """

    embed: Embed
    layers: Layer  # stacked: each array has an axis (layers,) in front
    pooler: Linear | None
    config: Config = eqx.field(static=True)

    def __init__(self, config: Config, *, key: jax.Array) -> None:
        key_embed, key_layers, key_pooler = jax.random.split(key, 3)
        self.embed = Embed(config, key=key_embed)
        self.layers = eqx.filter_vmap(lambda k: Layer(config, key=k))(
            jax.random.split(key_layers, config.num_hidden_layers)
        )
        self.pooler = Linear(config.hidden_size, config.hidden_size, key=key_pooler) if config.pooler else None
        self.config = config

    def __call__(
        self, tokens: jax.Array, mask: jax.Array | None = None, token_types: jax.Array | None = None
    ) -> jax.Array:
        """The last layer's hidden states, shape `(seq, d)`.

        **Arguments:**

        - `tokens`: ids, shape `(seq,)`, integer; `seq` at most `config.max_tokens`.
        - `mask`: shape `(seq,)`, bool or integer: false or 0 where `tokens` is padding. `None` hides nothing.
        - `token_types`: shape `(seq,)`, integer. `None` is all of type 0.
        """
        return self._run(tokens, mask, token_types, every=False)

    def hidden_states(
        self, tokens: jax.Array, mask: jax.Array | None = None, token_types: jax.Array | None = None
    ) -> jax.Array:
        """The embeddings and every layer's hidden states, shape `(layers + 1, seq, d)`. Arguments as for a call."""
        return self._run(tokens, mask, token_types, every=True)

    def pooled(self, hidden: jax.Array) -> jax.Array:
        """The summary that the first token stands for, shape `(d,)`, of the last hidden states `(seq, d)`."""
        if self.pooler is None:
            name = type(self).__name__
            raise bridge.BridgeError(f"this {name} has no pooler. Make it with one: Config.from_dict(…, pooler=True).")
        return jnp.tanh(self.pooler(hidden[0]))

    def _run(
        self, tokens: jax.Array, mask: jax.Array | None, token_types: jax.Array | None, *, every: bool
    ) -> jax.Array:
        (seq,) = tokens.shape
        name, most = type(self).__name__, self.config.max_tokens
        if seq > most:
            raise bridge.BridgeError(f"{name} got {seq} tokens and has positions for {most}: cut the text.")
        shown = jnp.ones(seq, bool) if mask is None else mask.astype(bool)
        types = jnp.zeros(seq, jnp.int32) if token_types is None else token_types

        def step(x: jax.Array, layer: Layer) -> tuple[jax.Array, jax.Array | None]:
            x = layer(x, shown)
            return x, x if every else None

        start = self.embed(tokens, types, self.config.positions(tokens))
        last, states = jax.lax.scan(step, start, self.layers)
        return last if states is None else jnp.concatenate([start[None], states])


_RULES = (
    "embeddings.{word|position|token_type}_embeddings.weight -> embed.{token|position|type}.weight",
    "embeddings.LayerNorm.{weight|bias} -> embed.norm.{weight|bias}",
    "encoder.layer.{l}.attention.self.{query|key|value}.** -> layers.attention.{query|key|value}.**",
    "encoder.layer.{l}.attention.output.dense.** -> layers.attention.out.**",
    "encoder.layer.{l}.attention.output.LayerNorm.{weight|bias} -> layers.norm1.{weight|bias}",
    "encoder.layer.{l}.intermediate.dense.** -> layers.up.**",
    "encoder.layer.{l}.output.dense.** -> layers.down.**",
    "encoder.layer.{l}.output.LayerNorm.{weight|bias} -> layers.norm2.{weight|bias}",
)
_FIRST_RELEASE = (  # what old files still hold
    "embeddings.LayerNorm.{gamma|beta} -> embed.norm.{weight|bias}",
    "encoder.layer.{l}.attention.output.LayerNorm.{gamma|beta} -> layers.norm1.{weight|bias}",
    "encoder.layer.{l}.output.LayerNorm.{gamma|beta} -> layers.norm2.{weight|bias}",
    "embeddings.position_ids -> _",  # 0, 1, 2 …
)


def rules(config: Config) -> list[str]:
    """Which key is which leaf, for `BertModel` and for models that hold it as `bert.`, in old spelling and new.

    The head that BERT was pre-trained with (`cls.`) is dropped. A head that a model was fine-tuned for is not: name it
    in `allow_unexpected=["classifier.**"]` to leave it behind.
    """
    return [*encoder_rules(config, prefix="bert."), "cls.** -> _"]


def encoder_rules(config: Config, *, prefix: str) -> list[str]:
    """The rules of the encoder alone, and of models whose keys for it begin with `prefix`."""
    today = [*_RULES, "pooler.dense.** -> pooler.**" if config.pooler else "pooler.** -> _"]
    return today + only_read([*_FIRST_RELEASE, *(prefix + rule for rule in (*today, *_FIRST_RELEASE))])


def told_by(keys: Iterable[str]) -> dict[str, Any]:
    """What no config.json says, and the keys of a checkpoint do: keywords of `Config.from_dict`."""
    return {"pooler": any(key.endswith("pooler.dense.weight") for key in keys)}
