"""Nomic BERT: a BERT with rotary positions and gated MLPs, for texts that are embedded (https://arxiv.org/abs/2402.01613).

    model = bridge.models.from_pretrained("nomic-ai/nomic-embed-text-v1.5")
    hidden = model(tokens, mask)  # (seq,), (seq,) -> (seq, d); a batch by jax.vmap

Texts begin with what they are for, `"search_query: "`, say: that is the caller's to write.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp

from bridge.models import bert
from bridge.models.attention import Attention, AttentionContext
from bridge.models.config import Fields
from bridge.models.embedding import TextEmbedding
from bridge.models.encoder import FirstToken, Layer, TextEncoder, stack
from bridge.models.heads import HEAD_RULES, read_head, text_head
from bridge.models.layers import ACTIVATIONS, GatedMLP
from bridge.models.rope import Rope, RotaryAngles
from bridge.models.spellings import only_read

_GATES = {"swiglu": "silu", "geglu": "gelu"}


@dataclass(frozen=True, kw_only=True)
class Config(bert.Config):
    """The fields of `bert.Config`, and these. The Hub's files call them otherwise: `n_embd`, `n_layer`.

    - `max_position_embeddings`: how long texts are meant to be; longer ones can be computed.
    - `rope`: how positions turn heads.
    - `lm_bias`: whether a `masked_lm` has biases; the Hub's have none. `fused`: whether query, key and value lie in one
      tensor, as the Hub has them. Both no config.json says.
    """

    model_types = ("nomic_bert",)
    # What only training reads, how it is run on a GPU, and leftovers of GPT-2's config.
    unused: ClassVar[Collection[str]] = frozenset(
        {
            *("attention_probs_dropout_prob", "attn_pdrop", "classifier_dropout", "embd_pdrop", "hidden_dropout_prob"),
            *("resid_pdrop", "summary_first_dropout", "summary_activation", "summary_proj_to_labels", "summary_type"),
            *("summary_use_proj", "dense_seq_output", "fused_bias_fc", "fused_dropout_add_ln", "use_flash_attn"),
            *("parallel_block_tied_norm", "reorder_and_upcast_attn", "use_xentropy"),
        }
    )

    rope: Rope
    lm_bias: bool = True
    fused: bool = True

    @property
    def max_tokens(self) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Rotary positions have no end."""
        return None

    @property
    def head_dim(self) -> int:
        """The width of a head."""
        return self.hidden_size // self.num_attention_heads

    @classmethod
    def read(cls, fields: Fields) -> dict[str, Any]:
        """What the constructor takes."""
        hub = fields.has("n_embd")
        names = ("n_embd", "n_head") if hub else ("hidden_size", "num_attention_heads")
        width, heads = map(fields.count, names)
        if width % (2 * heads):
            fields.refuse(names[1], heads, f"a divisor of {width} that makes the width of a head even")
        fields.one_of("head_dim", [width // heads], default=width // heads)
        return {
            "hidden_size": width,
            "num_attention_heads": heads,
            **(_of_the_hub(fields) if hub else _of_transformers(fields)),
            "type_vocab_size": fields.whole("type_vocab_size", default=cls.type_vocab_size),
            **{part: fields.part(part, default=True) for part in ("pooler", "lm_bias", "fused")},
            **read_head(fields),
        }


def _of_transformers(fields: Fields) -> dict[str, Any]:
    """As transformers writes them."""
    positions = fields.count("max_position_embeddings", default=2048)
    return {
        "vocab_size": fields.count("vocab_size"),
        "num_hidden_layers": fields.count("num_hidden_layers"),
        "intermediate_size": fields.count("intermediate_size"),
        "max_position_embeddings": positions,
        "hidden_act": fields.one_of("hidden_act", list(ACTIVATIONS), default="silu"),
        "layer_norm_eps": fields.number("layer_norm_eps", default=1e-12),
        "rope": Rope.of(fields, theta=1000.0, positions=positions),
    }


def _of_the_hub(fields: Fields) -> dict[str, Any]:
    """As the Hub's files have them; what these leave out is what the code beside them takes."""
    for field in ("qkv_proj_bias", "mlp_fc1_bias", "mlp_fc2_bias"):
        fields.one_of(field, [False], default=True)
    for field in ("prenorm", "parallel_block", "use_rms_norm", "causal", "rotary_emb_interleaved"):
        fields.one_of(field, [False], default=False)
    fields.one_of("scale_attn_by_inverse_layer_idx", [False], default=False)
    fields.one_of("scale_attn_weights", [True], default=True)
    fields.one_of("rotary_emb_fraction", [1.0, 1], default=0.0)
    fields.nothing("rotary_emb_scale_base")
    multiple = fields.count("pad_vocab_size_multiple", default=1)
    rope = Rope(fields.number("rotary_emb_base", default=10_000.0))
    trained = fields.count("max_trained_positions", default=2048)
    factor = fields.optional("rotary_scaling_factor")
    if factor is not None:
        rope = replace(rope, scaling="dynamic", factor=factor, original_max_position_embeddings=trained)
    return {
        "vocab_size": -(-fields.count("vocab_size") // multiple) * multiple,
        "num_hidden_layers": fields.count("n_layer"),
        "intermediate_size": fields.count("n_inner"),
        "max_position_embeddings": fields.count("n_positions"),
        "hidden_act": _GATES[fields.one_of("activation_function", list(_GATES), default="gelu_new")],
        "layer_norm_eps": fields.number("layer_norm_epsilon", default=1e-5),
        "rope": rope,
    }


class NomicBert(TextEncoder):
    """The encoder. See `bridge.models` for what can be called.

    **Arguments:** (of the constructor)

    - `config`: a `Config`, which the model carries.
    - `key`: for the initial weights.
    """

    def __init__(self, config: Config, *, key: jax.Array) -> None:
        width = config.hidden_size
        key_embed, key_layers, key_pooler, key_head = jax.random.split(key, 4)

        def norm() -> eqx.nn.LayerNorm:
            return eqx.nn.LayerNorm(width, config.layer_norm_eps)

        def layer(key: jax.Array) -> Layer:
            keys = jax.random.split(key)
            attention = Attention(width, config.num_attention_heads, qkv_bias=False, out_bias=False, key=keys[0])
            mlp = GatedMLP(width, config.intermediate_size, config.hidden_act, key=keys[1])
            return Layer(attention, mlp, norm, norm_first=False)

        embed = TextEmbedding(width, tokens=config.vocab_size, types=config.type_vocab_size, norm=norm(), key=key_embed)
        pooler = FirstToken(width, width, jnp.tanh, key=key_pooler) if config.pooler else None
        head = text_head(config, norm(), lm_bias=config.lm_bias, key=key_head)
        super().__init__(config, embed, stack(layer, config.num_hidden_layers)(key_layers), pooler=pooler, head=head)

    def context(self, tokens: jax.Array, mask: jax.Array) -> AttentionContext:
        """The mask, and how positions turn heads."""
        return AttentionContext(mask, RotaryAngles.at(jnp.arange(len(tokens)), self.config.rope, self.config.head_dim))


HEAD_KEYS: Mapping[str, str] = {
    "masked_lm": "cls.predictions.transform.dense.weight",
    "sequence_classification": "classifier.weight",
    "token_classification": "classifier.weight",
}
"""A key of each head that there is."""

_HUB = (
    "embeddings.{word|token_type}_embeddings.weight -> embed.{token|type}.weight",
    "emb_ln.** -> embed.norm.**",
    "encoder.layers.{l}.attn.Wqkv.weight [(query|key|value) m] -> layers.attention.{query|key|value}.weight [_ m]",
    "encoder.layers.{l}.attn.out_proj.weight -> layers.attention.out.weight",
    "encoder.layers.{l}.mlp.{fc11|fc12|fc2}.weight -> layers.mlp.{up|gate|down}.weight",
    "encoder.layers.{l}.{norm1|norm2}.** -> layers.{norm1|norm2}.**",
)
_IN_MEMORY = (  # as transformers calls them, and writes them if it is asked to
    "embeddings.{word|token_type}_embeddings.weight -> embed.{token|type}.weight",
    "embeddings.LayerNorm.** -> embed.norm.**",
    "layers.{l}.self_attn.{q|k|v|o}_proj.weight -> layers.attention.{query|key|value|out}.weight",
    "layers.{l}.mlp.{up|gate|down}_proj.weight -> layers.mlp.{up|gate|down}.weight",
    "layers.{l}.{post_attention|post_mlp}_layernorm.** -> layers.{norm1|norm2}.**",
)


def rules(config: Config) -> list[str]:
    """Which key is which leaf, for the encoder alone and for models that hold it as `bert.` or `nomic_bert.`.

    A head of pre-training (`cls.`) that the model does not have is dropped. A head that a model was fine-tuned for is
    not: name it in `allow_unexpected=["classifier.**"]` to leave it behind.
    """
    pooler = "pooler.dense.** -> pooler.**" if config.pooler else "pooler.** -> _"
    alone = [*(_HUB if config.fused else _IN_MEMORY), pooler]
    held = [f"{name}.{rule}" for name in ("bert", "nomic_bert") for rule in alone]
    encoder = [*alone, *only_read(held), "**.inv_freq -> _"]
    if config.head != "masked_lm":
        return [*encoder, *HEAD_RULES.get(config.head, ()), "cls.** -> _"]
    transform = "cls.predictions.transform"
    return [
        *encoder,
        f"{transform}.dense.** -> head.dense.**",
        f"{transform}.layer_norm.** -> head.norm.**",
        "cls.predictions.bias -> head.bias",
        "cls.predictions.decoder.bias -> head.bias ; tie=true",
        "cls.predictions.decoder.weight -> embed.token.weight ; tie=true",
    ]


def parts_of(keys: Iterable[str]) -> dict[str, bool]:
    """Which parts a checkpoint of these keys has, and no config.json says: keywords of `Config.from_dict`."""
    names = set(keys)
    fused = not any(name.endswith(".self_attn.q_proj.weight") for name in names)
    return {**bert.parts_of(names), "lm_bias": "cls.predictions.transform.dense.bias" in names, "fused": fused}
