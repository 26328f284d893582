"""ESM: an encoder of proteins, a letter a token, with rotary or learned positions.

    model = bridge.models.from_pretrained("facebook/esm2_t6_8M_UR50D")
    hidden = model(tokens, mask)  # (seq,), (seq,) -> (seq, d); a batch by jax.vmap
    scores = model.logits(hidden)  # (seq, vocab), of a masked_lm

    contacts = model.contacts(tokens, mask)  # (letters, letters): which of them are near each other in the fold

Norms stand before attention and MLP.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp

import bridge
from bridge.models import bert, roberta
from bridge.models.attention import Attention, AttentionContext
from bridge.models.config import Fields
from bridge.models.embedding import TextEmbedding
from bridge.models.encoder import FirstToken, Layer, TextEncoder, stack
from bridge.models.heads import HEAD_RULES, masked_lm_rules, text_head
from bridge.models.layers import MLP, Linear, accumulation_dtype
from bridge.models.rope import Rope, RotaryAngles
from bridge.models.spellings import only_read

_SHOWN_IN_TRAINING = 1 - 0.15 * 0.8  # the share of letters that were not masked


@dataclass(frozen=True)
class Config(roberta.Config):
    """The fields of `roberta.Config`, without token types, and these.

    - `rotary`: whether positions turn heads; else each has an embedding.
    - `rope_theta`: the base of the angles.
    - `norm_embeddings`: whether embeddings are normed (`emb_layer_norm_before`).
    - `contacts`: whether there is the layer that `Esm.contacts` needs. This no config.json says. `eos_token_id`: the id
      behind the last letter.
    - `token_dropout`: whether masked letters are zeros, and the others larger instead. `mask_token_id`: the mask's id.
    """

    model_types = ("esm",)
    unused: ClassVar[Collection[str]] = frozenset(
        {"attention_probs_dropout_prob", "classifier_dropout", "hidden_dropout_prob", "esmfold_config", "vocab_list"}
    )

    rotary: bool = True
    rope_theta: float = 10000.0
    norm_embeddings: bool = False
    token_dropout: bool = False
    mask_token_id: int = 32
    contacts: bool = True
    eos_token_id: int = 2

    @property
    def max_tokens(self) -> int | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """How many tokens there are positions for; rotary ones have no end."""
        return None if self.rotary else super().max_tokens

    @classmethod
    def read(cls, fields: Fields) -> dict[str, Any]:
        """What the constructor takes."""
        fields.one_of("is_folding_model", [False], default=False)
        kind = fields.one_of("position_embedding_type", ["absolute", "rotary"], default="absolute")
        fields.fill({"hidden_act": "gelu"})
        own = {
            "rotary": kind == "rotary",
            "rope_theta": fields.number("rope_theta", default=cls.rope_theta),
            "norm_embeddings": fields.flag("emb_layer_norm_before", default=False),
            "token_dropout": fields.flag("token_dropout", default=False),
            "contacts": fields.part("contacts", default=True),
            "eos_token_id": fields.whole("eos_token_id", default=cls.eos_token_id),
            "mask_token_id": fields.whole("mask_token_id", default=cls.mask_token_id),
        }
        return super().read(fields) | {"type_vocab_size": 0} | own


class Esm(TextEncoder):
    """The encoder. See `bridge.models` for what can be called.

    **Arguments:** (of the constructor)

    - `config`: a `Config`, which the model carries.
    - `key`: for the initial weights.
    """

    contact: Linear | None

    def __init__(self, config: Config, *, key: jax.Array) -> None:
        width, maps = config.hidden_size, config.num_hidden_layers * config.num_attention_heads
        key_embed, key_layers, key_pooler, key_head, key_contact = jax.random.split(key, 5)
        self.contact = Linear(maps, 1, key=key_contact) if config.contacts else None

        def norm() -> eqx.nn.LayerNorm:
            return eqx.nn.LayerNorm(width, config.layer_norm_eps)

        def layer(key: jax.Array) -> Layer:
            keys = jax.random.split(key)
            attention = Attention(width, config.num_attention_heads, key=keys[0])
            mlp = MLP(width, config.intermediate_size, "gelu", key=keys[1])
            return Layer(attention, mlp, norm, norm_first=True)

        embed = TextEmbedding(
            width,
            tokens=config.vocab_size,
            positions=0 if config.rotary else config.max_position_embeddings,
            norm=norm() if config.norm_embeddings else None,
            key=key_embed,
        )
        super().__init__(
            config,
            embed,
            stack(layer, config.num_hidden_layers)(key_layers),
            norm=norm(),
            pooler=FirstToken(width, width, jnp.tanh, key=key_pooler) if config.pooler else None,
            head=text_head(config, norm(), activation=jnp.tanh, lm_activation="gelu", key=key_head),
        )

    def embedded(self, tokens: jax.Array, mask: jax.Array, token_types: jax.Array) -> jax.Array:
        """What enters the first layer, `(seq, d)`: zeros for what the mask hides."""
        x = jax.vmap(self.embed.token)(tokens)
        if self.config.token_dropout:
            hidden = tokens == self.config.mask_token_id
            dtype = accumulation_dtype(x.dtype)
            shown = 1 - hidden.sum(dtype=dtype) / mask.sum(dtype=dtype)
            x = (jnp.where(hidden[:, None], 0, x) * _SHOWN_IN_TRAINING / shown).astype(x.dtype)
        if self.embed.position is not None:
            x = x + jax.vmap(self.embed.position)(self.config.positions(tokens))
        if self.embed.norm is not None:
            x = jax.vmap(self.embed.norm)(x)
        return x * mask[:, None].astype(x.dtype)

    def contacts(self, tokens: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """How likely two letters are near each other in the fold, `(seq − 2, seq − 2)`: without the first token and the
        last. Arguments as for a call. **Raises:** `bridge.BridgeError` where the model has no such layer.
        """
        if self.contact is None:
            raise bridge.BridgeError(
                "this Esm", "has no contact head", "Make it with one: Config.from_dict(…, contacts=True)"
            )
        shown = jnp.ones(len(tokens), bool) if mask is None else mask.astype(bool)
        x, context = self.embedded(tokens, shown, jnp.zeros_like(tokens)), self.context(tokens, shown)
        _, states = self.through(x, context, every=True)
        assert states is not None
        before = jnp.concatenate([x[None], states[:-1]])

        def looks(layer: Any, x: jax.Array) -> jax.Array:
            return layer.attention.weights(jax.vmap(layer.norm1)(x), context)

        maps = eqx.filter_vmap(looks)(self.layers, before).reshape(-1, len(tokens), len(tokens))
        letters = (shown & (tokens != self.config.eos_token_id)).astype(maps.dtype)
        maps = (maps * (letters[:, None] * letters[None, :])[None])[:, 1:-1, 1:-1]
        maps = maps + jnp.swapaxes(maps, 1, 2)
        both = maps.sum(2, keepdims=True) * maps.sum(1, keepdims=True) / maps.sum((1, 2), keepdims=True)
        return jax.nn.sigmoid(jax.vmap(jax.vmap(self.contact))(jnp.moveaxis(maps - both, 0, -1))[..., 0])

    def run_every(self, x: jax.Array, context: Any) -> jax.Array:
        """What `embed` gave and every layer's states, `(layers + 1, seq, d)`; the last is normed."""
        states = super().run_every(x, context)
        return states.at[-1].set(jax.vmap(self.norm)(states[-1])) if self.norm is not None else states

    def context(self, tokens: jax.Array, mask: jax.Array) -> AttentionContext:
        """The mask, and how positions turn heads."""
        if not self.config.rotary:
            return AttentionContext(mask)
        head_dim = self.config.hidden_size // self.config.num_attention_heads
        return AttentionContext(mask, RotaryAngles.at(jnp.arange(len(tokens)), Rope(self.config.rope_theta), head_dim))


HEAD_KEYS: Mapping[str, str] = {
    "masked_lm": "lm_head.dense.weight",
    "sequence_classification": "classifier.dense.weight",
    "token_classification": "classifier.weight",
}
"""A key of each head that there is."""

_RULES = (
    "embeddings.{word|position}_embeddings.weight -> embed.{token|position}.weight",
    "embeddings.layer_norm.** -> embed.norm.**",
    "encoder.layer.{l}.attention.self.{query|key|value}.** -> layers.attention.{query|key|value}.**",
    "encoder.layer.{l}.attention.output.dense.** -> layers.attention.out.**",
    "encoder.layer.{l}.attention.LayerNorm.{weight|bias} -> layers.norm1.{weight|bias}",
    "encoder.layer.{l}.LayerNorm.{weight|bias} -> layers.norm2.{weight|bias}",
    "encoder.layer.{l}.intermediate.dense.** -> layers.mlp.up.**",
    "encoder.layer.{l}.output.dense.** -> layers.mlp.down.**",
    "encoder.emb_layer_norm_after.** -> norm.**",
)
_OLD = (
    "encoder.layer.{l}.attention.LayerNorm.{gamma|beta} -> layers.norm1.{weight|bias}",  # transformers 5 writes these
    "encoder.layer.{l}.LayerNorm.{gamma|beta} -> layers.norm2.{weight|bias}",
    "embeddings.position_ids -> _",
)


def rules(config: Config) -> list[str]:
    """Which key is which leaf, for `EsmModel` and for models that hold it as `esm.`.

    A head of pre-training (`lm_head.`) that the model does not have is dropped. A head that a model was fine-tuned for
    is not: name it in `allow_unexpected=["classifier.**"]` to leave it behind.
    """
    today = [*_RULES, "pooler.dense.** -> pooler.**" if config.pooler else "pooler.** -> _"]
    today.append("contact_head.regression.** -> contact.**" if config.contacts else "contact_head.** -> _")
    if config.rotary:
        today.insert(0, "embeddings.position_embeddings.weight -> _")  # old files have it, and never use it
    encoder = [
        *today,
        *only_read([*_OLD, *(f"esm.{rule}" for rule in (*today, *_OLD))]),
        "**.rotary_embeddings.inv_freq -> _",
    ]
    if config.head == "masked_lm":
        return [*encoder, *(rule for rule in masked_lm_rules("lm_head") if "decoder.bias" not in rule)]
    if config.head == "sequence_classification":
        return [*encoder, "classifier.{dense|out_proj}.** -> head.{dense|out}.**", "lm_head.** -> _"]
    return [*encoder, *HEAD_RULES.get(config.head, ()), "lm_head.** -> _"]


def parts_of(keys: Iterable[str]) -> dict[str, bool]:
    """Which parts a checkpoint of these keys has, and no config.json says: keywords of `Config.from_dict`."""
    names = list(keys)
    return {**bert.parts_of(names), "contacts": any(key.endswith("contact_head.regression.weight") for key in names)}
