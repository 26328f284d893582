"""DeBERTa v2 and v3: a BERT whose tokens also look at how far they are apart (https://arxiv.org/abs/2006.03654).

    model = bridge.models.from_pretrained("microsoft/deberta-v3-base")
    hidden = model(tokens, mask)  # (seq,), (seq,) -> (seq, d); a batch by jax.vmap
    scores = model.logits(hidden)  # where config.json names a class with a head

Distances have embeddings, the same for all layers. v3 has no other positions, and so no longest text.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp

from bridge.models import bert
from bridge.models.config import Fields
from bridge.models.disentangled import DisentangledAttention, DisentangledContext, Distances
from bridge.models.embedding import TextEmbedding
from bridge.models.encoder import FirstToken, Layer, TextEncoder, stack
from bridge.models.heads import masked_lm_rules, text_head
from bridge.models.layers import ACTIVATIONS, MLP, Linear
from bridge.models.spellings import only_read

_ACTIVATIONS: Mapping[str, Callable[[jax.Array], jax.Array]] = {**ACTIVATIONS, "tanh": jnp.tanh}


@dataclass(frozen=True)
class Config(bert.Config):
    """The fields of `bert.Config`, and these.

    - `embedding_size`: the width of embeddings. Where it is not `hidden_size`, a layer leads from one to the other.
    - `position_biased_input`: whether positions have embeddings that are added to the tokens'.
    - `relative_attention`: whether distances have embeddings, as far as `max_relative_positions`; a row each, or,
        with `position_buckets`, so many rows to either side, which far distances share.
    - `norm_rel_ebd`: `"layer_norm"`, or `"none"`: what these embeddings go through.
    - `pos_att_type`: whether tokens' queries meet distances' keys (`"c2p"`), and tokens' keys distances' queries
        (`"p2c"`). `share_att_key`: whether both are made by the layers that make the tokens' own.
    - `conv_kernel_size`: how many tokens a convolution sees beside the first layer; 0: there is none. `conv_groups`,
        `conv_act`: its groups and activation.
    - `pooler_hidden_act`: the pooler's activation.
    - `legacy`: how the keys of a masked_lm head are called, `cls.predictions.` or `lm_predictions.`.
    """

    model_types = ("deberta-v2",)
    unused: ClassVar[Collection[str]] = frozenset(
        {
            *("attention_probs_dropout_prob", "cls_dropout", "hidden_dropout_prob", "padding_idx"),
            "pooler_dropout",
        }
    )

    key_bias: ClassVar[bool] = True

    type_vocab_size: int = 0
    layer_norm_eps: float = 1e-7
    embedding_size: int = 0
    position_biased_input: bool = True
    relative_attention: bool = False
    max_relative_positions: int = 512
    position_buckets: int | None = None
    norm_rel_ebd: str = "none"
    pos_att_type: tuple[str, ...] = ()
    share_att_key: bool = False
    conv_kernel_size: int = 0
    conv_groups: int = 1
    conv_act: str = "tanh"
    pooler_hidden_act: str = "gelu"
    legacy: bool = True

    @property
    def embedding_width(self) -> int:
        """Of the embeddings' rows."""
        return self.embedding_size or self.hidden_size

    @property
    def max_tokens(self) -> int | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """How many tokens there are positions for; distances have no end."""
        return self.max_position_embeddings if self.position_biased_input else None

    @classmethod
    def read(cls, fields: Fields) -> dict[str, Any]:
        """What the constructor takes."""
        types = fields.whole("type_vocab_size", default=cls.type_vocab_size)
        fields.fill({"type_vocab_size": 1})  # BERT has some
        taken = super().read(fields) | {"type_vocab_size": types}
        width = taken["hidden_size"]
        head_dim = width // taken["num_attention_heads"]
        fields.one_of("attention_head_size", [head_dim], default=head_dim)
        fields.one_of("pooler_hidden_size", [width], default=width)
        fields.one_of("z_steps", [0, 1], default=0)
        return taken | {
            "embedding_size": fields.count("embedding_size", default=width),
            "position_biased_input": fields.flag("position_biased_input", default=cls.position_biased_input),
            "pooler_hidden_act": fields.one_of("pooler_hidden_act", list(_ACTIVATIONS), default=cls.pooler_hidden_act),
            "legacy": fields.flag("legacy", default=cls.legacy),
            **_read_distances(fields, taken["max_position_embeddings"]),
            **_read_convolution(fields, width),
        }


def _read_distances(fields: Fields, positions: int) -> dict[str, Any]:
    """What says how tokens look at distances."""
    relative = fields.flag("relative_attention", default=False)
    farthest = fields.limit("max_relative_positions") or positions
    rows = fields.limit("position_buckets")
    if relative and rows is not None and not 2 <= rows < 2 * (farthest - 1):
        fields.refuse("position_buckets", rows, f"a number from 2 up and below {2 * (farthest - 1)}, or -1")
    kinds = fields.words("pos_att_type", ["c2p", "p2c", "none"])
    return {
        "relative_attention": relative,
        "max_relative_positions": farthest,
        "position_buckets": rows,
        "norm_rel_ebd": fields.one_of("norm_rel_ebd", ["none", "layer_norm"], default="none"),
        "pos_att_type": tuple(sorted(kinds - {"none"})),
        "share_att_key": fields.flag("share_att_key", default=False),
    }


def _read_convolution(fields: Fields, width: int) -> dict[str, Any]:
    """What says what stands beside the first layer."""
    size, groups = fields.whole("conv_kernel_size", default=0), fields.count("conv_groups", default=1)
    if size and size % 2 == 0:
        fields.refuse("conv_kernel_size", size, "an odd number, or 0")
    if width % groups:
        fields.refuse("conv_groups", groups, f"a divisor of {width}")
    act = fields.one_of("conv_act", list(_ACTIVATIONS), default="tanh")
    return {"conv_kernel_size": size, "conv_groups": groups, "conv_act": act}


class Convolution(eqx.Module):
    """Neighbouring embeddings, added to the first layer's states. Arguments of the constructor as above."""

    conv: eqx.nn.Conv1d
    norm: eqx.nn.LayerNorm
    activation: str = eqx.field(static=True)

    def __init__(self, config: Config, *, key: jax.Array) -> None:
        width, size = config.hidden_size, config.conv_kernel_size
        self.conv = eqx.nn.Conv1d(width, width, size, padding=size // 2, groups=config.conv_groups, key=key)
        self.norm = eqx.nn.LayerNorm(width, config.layer_norm_eps)
        self.activation = config.conv_act

    def __call__(self, embedded: jax.Array, x: jax.Array, shown: jax.Array) -> jax.Array:
        """Of embeddings and states `(seq, d)` other states: zeros where `shown`, `(seq,)`, is false."""
        near = _ACTIVATIONS[self.activation](self.conv(embedded.T).T)
        return jax.vmap(self.norm)(x + near) * shown[:, None].astype(x.dtype)


class DebertaV2(TextEncoder):
    """The encoder. See `bridge.models` for what can be called.

    **Arguments:** (of the constructor)

    - `config`: a `Config`, which the model carries.
    - `key`: for the initial weights.
    """

    project: Linear | None
    norm_embed: eqx.nn.LayerNorm
    distances: Distances | None
    conv: Convolution | None

    def __init__(self, config: Config, *, key: jax.Array) -> None:
        width, narrow = config.hidden_size, config.embedding_width
        keys = jax.random.split(key, 7)

        def norm(width: int = width) -> eqx.nn.LayerNorm:
            return eqx.nn.LayerNorm(width, config.layer_norm_eps)

        def layer(key: jax.Array) -> Layer:
            keys = jax.random.split(key)
            heads, kinds = config.num_attention_heads, config.pos_att_type
            own = config.relative_attention and not config.share_att_key
            attention = DisentangledAttention(width, heads, kinds, own=own, key_bias=config.key_bias, key=keys[0])
            mlp = MLP(width, config.intermediate_size, config.hidden_act, key=keys[1])
            return Layer(attention, mlp, norm, norm_first=False)

        embed = TextEmbedding(
            narrow,
            tokens=config.vocab_size,
            positions=config.max_position_embeddings if config.position_biased_input else 0,
            types=config.type_vocab_size,
            key=keys[0],
        )
        activation = _ACTIVATIONS[config.pooler_hidden_act]
        self.project = None if narrow == width else Linear(narrow, width, use_bias=False, key=keys[1])
        self.norm_embed = norm()
        farthest, rows = config.max_relative_positions, config.position_buckets
        reach = {"reach": farthest} if rows is None else {"reach": rows, "farthest": farthest}
        normed = norm() if config.norm_rel_ebd == "layer_norm" else None
        relative = config.relative_attention
        self.distances = Distances(width, **reach, norm=normed, key=keys[2]) if relative else None
        self.conv = Convolution(config, key=keys[3]) if config.conv_kernel_size else None
        super().__init__(
            config,
            embed,
            stack(layer, config.num_hidden_layers)(keys[4]),
            pooler=FirstToken(width, width, activation, key=keys[5]) if config.pooler else None,
            head=text_head(config, norm(narrow), embedding_size=narrow, key=keys[6]),
        )

    def embedded(self, tokens: jax.Array, mask: jax.Array, token_types: jax.Array) -> jax.Array:
        """What enters the first layer, `(seq, d)`: zeros for what the mask hides."""
        x = self.embed(tokens, self.config.positions(tokens), token_types)
        x = x if self.project is None else jax.vmap(self.project)(x)
        return jax.vmap(self.norm_embed)(x) * mask[:, None].astype(x.dtype)

    def context(self, tokens: jax.Array, mask: jax.Array) -> DisentangledContext:
        """Which tokens are no padding, and their distances."""
        return DisentangledContext.of(mask, self.distances)

    def through(self, x: jax.Array, context: Any, *, every: bool) -> tuple[jax.Array, jax.Array | None]:
        """Through all layers, and through the convolution behind the first."""
        if self.conv is None:
            return super().through(x, context, every=every)
        conv, embedded, shown = self.conv, x, jnp.diagonal(context.mask)

        def step(x: jax.Array, layer: tuple[Any, jax.Array]) -> tuple[jax.Array, jax.Array | None]:
            call, first = layer
            x = jax.lax.cond(first, lambda x: conv(embedded, x, shown), lambda x: x, call(x, context))
            return x, x if every else None

        return jax.lax.scan(step, x, (self.layers, jnp.arange(self.config.num_hidden_layers) == 0))


HEAD_KEYS: Mapping[str, str | Sequence[str]] = {
    "masked_lm": ("cls.predictions.transform.dense.weight", "lm_predictions.lm_head.dense.weight"),
    "question_answering": "qa_outputs.weight",
    "sequence_classification": "classifier.weight",
    "token_classification": "classifier.weight",
}
"""A key of each head that there is, in each spelling."""

_RULES = (
    "embeddings.{word|position|token_type}_embeddings.weight -> embed.{token|position|type}.weight",
    "embeddings.embed_proj.weight -> project.weight",
    "encoder.rel_embeddings.weight -> distances.embedding.weight",
    "encoder.conv.conv.** -> conv.conv.**",
    "encoder.layer.{l}.attention.output.dense.** -> layers.attention.out.**",
    "encoder.layer.{l}.intermediate.dense.** -> layers.mlp.up.**",
    "encoder.layer.{l}.output.dense.** -> layers.mlp.down.**",
)
_ATTENTION = (
    "encoder.layer.{l}.attention.self.{query|key|value}_proj.** -> layers.attention.{query|key|value}.**",
    "encoder.layer.{l}.attention.self.pos_{key|query}_proj.** -> layers.attention.pos_{key|query}.**",
)
_NORMS = (
    "embeddings.LayerNorm.{weight|bias} -> norm_embed.{weight|bias}",
    "encoder.LayerNorm.{weight|bias} -> distances.norm.{weight|bias}",
    "encoder.conv.LayerNorm.{weight|bias} -> conv.norm.{weight|bias}",
    "encoder.layer.{l}.attention.output.LayerNorm.{weight|bias} -> layers.norm1.{weight|bias}",
    "encoder.layer.{l}.output.LayerNorm.{weight|bias} -> layers.norm2.{weight|bias}",
)
_FIRST_RELEASE = (  # what old files still hold
    *(rule.replace("LayerNorm.{weight|bias}", "LayerNorm.{gamma|beta}", 1) for rule in _NORMS),
    "embeddings.position_ids -> _",  # 0, 1, 2 …
)


def rules(config: Config) -> list[str]:
    """Which key is which leaf, for `DebertaV2Model` and for models that hold it as `deberta.`, in old spelling and new.

    Heads of pre-training that the model does not have are dropped. A head that a model was fine-tuned for is not: name
    it in `allow_unexpected=["classifier.**"]` to leave it behind.
    """
    return rules_with(config, _ATTENTION)


def rules_with(config: Config, attention: Sequence[str]) -> list[str]:
    """The rules, with those of what makes queries, keys and values."""
    today = [*_RULES, *attention, *_NORMS]
    if not config.position_biased_input:
        today.insert(0, "embeddings.position_embeddings.weight -> _")  # v3's files have it, of pre-training
    old = only_read([*_FIRST_RELEASE, *(f"deberta.{rule}" for rule in (*today, *_FIRST_RELEASE))])
    pooler = "pooler.dense.** -> pooler.**" if config.pooler else "pooler.** -> _"
    return [*today, *old, pooler, *_head_rules(config), "mask_predictions.** -> _"]


def _head_rules(config: Config) -> list[str]:
    """Both spellings of a masked_lm head compute the same."""
    new = masked_lm_rules("lm_predictions.lm_head", norm="LayerNorm")[:3]  # what follows is of a decoder of its own
    if config.head != "masked_lm":
        return [*bert.head_rules(config), "lm_predictions.** -> _"]
    return [*bert.head_rules(config), *only_read(new)] if config.legacy else new


def parts_of(keys: Iterable[str]) -> dict[str, bool]:
    """Which parts a checkpoint of these keys has, and no config.json says: keywords of `Config.from_dict`."""
    return {"pooler": "pooler.dense.weight" in set(keys)}
