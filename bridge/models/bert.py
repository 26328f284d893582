"""BERT: an encoder of text, bidirectional attention over absolute positions, norms after the residuals.

    model = bridge.models.from_pretrained("sentence-transformers/all-MiniLM-L6-v2")
    hidden = model(tokens, mask)  # (seq,), (seq,) -> (seq, d); a batch by jax.vmap
    scores = model.logits(hidden)  # where config.json names a class with a head

For inference: dropout is left out. All layers are one stacked module under `jax.lax.scan`, which compiles one layer
whatever their number.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp

from bridge.models.attention import Attention
from bridge.models.config import Fields, ModelConfig
from bridge.models.embedding import TextEmbedding
from bridge.models.encoder import FirstToken, Layer, TextEncoder, stack
from bridge.models.heads import HEAD_RULES, read_head, text_head
from bridge.models.layers import ACTIVATIONS, MLP, Transform
from bridge.models.spellings import only_read

# Fields that only training reads, and leftovers of BERT's first release that nothing ever read.
_UNUSED = frozenset(
    {
        *("attention_probs_dropout_prob", "classifier_dropout", "directionality", "hidden_dropout_prob"),
        *("pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers", "pooler_size_per_head"),
        "pooler_type",
    }
)


@dataclass(frozen=True)
class Config(ModelConfig):
    """What makes one BERT differ from another. The names are those of config.json.

    - `hidden_size`: the width, d. `num_attention_heads` divides it. `intermediate_size`: the width inside an MLP.
    - `vocab_size`, `max_position_embeddings`, `type_vocab_size`: rows of the embeddings.
    - `hidden_act`: one of `ACTIVATIONS`. `layer_norm_eps`: what layer norms add to the variance.
    - `pooler`: whether there is the layer that `Bert.pooled` needs. This no config.json says: checkpoints of
      `BertForMaskedLM` have none.
    - `head`: one of `bridge.models.heads.HEADS`, or `""`. `labels`: what it tells apart, by name.
    """

    model_types = ("bert",)
    unused: ClassVar[Collection[str]] = _UNUSED
    classifier_activation: ClassVar[Transform | None] = None  # texts are classified by the pooler's summary
    lm_activation: ClassVar[str | None] = None  # hidden_act

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
    head: str = ""
    labels: tuple[str, ...] = ()

    @property
    def embedding_width(self) -> int:
        """Of the embeddings' rows: d."""
        return self.hidden_size

    @property
    def projects(self) -> bool:
        """Whether a layer leads from the embeddings to states."""
        return self.embedding_width != self.hidden_size

    @property
    def max_tokens(self) -> int:
        """How many tokens there are positions for."""
        return self.max_position_embeddings

    def positions(self, tokens: jax.Array) -> jax.Array:
        """The row of the position embedding that each token takes, shape `(seq,)` to `(seq,)`."""
        return jnp.arange(tokens.shape[0])

    @classmethod
    def read(cls, fields: Fields) -> dict[str, Any]:
        """What the constructor takes."""
        fields.one_of("position_embedding_type", ["absolute"], default="absolute")
        for flag in ("is_decoder", "add_cross_attention"):
            fields.one_of(flag, [False], default=False)
        fields.one_of("pruned_heads", [{}], default={})
        width, heads = fields.count("hidden_size"), fields.count("num_attention_heads")
        if width % heads:
            fields.refuse("num_attention_heads", heads, f"a divisor of {width}")
        head = read_head(fields)
        by_pooler = head["head"] == "sequence_classification" and cls.classifier_activation is None
        return {
            "vocab_size": fields.count("vocab_size"),
            "hidden_size": width,
            "num_hidden_layers": fields.count("num_hidden_layers"),
            "num_attention_heads": heads,
            "intermediate_size": fields.count("intermediate_size"),
            "max_position_embeddings": fields.count("max_position_embeddings"),
            "type_vocab_size": fields.count("type_vocab_size", default=cls.type_vocab_size),
            "hidden_act": fields.one_of("hidden_act", list(ACTIVATIONS), default=cls.hidden_act),
            "layer_norm_eps": fields.number("layer_norm_eps", default=cls.layer_norm_eps),
            "pooler": fields.part("pooler", default=True) or by_pooler,
            **head,
        }


class Bert(TextEncoder):
    """The encoder. See `bridge.models` for what can be called.

    **Arguments:** (of the constructor)

    - `config`: a `Config`, which the model carries.
    - `key`: for the initial weights.
    """

    def __init__(self, config: Config, *, key: jax.Array) -> None:
        width, narrow = config.hidden_size, config.embedding_width
        key_embed, key_layers, key_pooler, key_head = jax.random.split(key, 4)

        def norm(width: int = width) -> eqx.nn.LayerNorm:
            return eqx.nn.LayerNorm(width, config.layer_norm_eps)

        embed = TextEmbedding(
            narrow,
            tokens=config.vocab_size,
            positions=config.max_position_embeddings,
            types=config.type_vocab_size,
            norm=norm(narrow),
            out_size=width if config.projects else None,
            key=key_embed,
        )
        head = text_head(
            config,
            norm(narrow),
            activation=config.classifier_activation,
            lm_activation=config.lm_activation,
            embedding_size=narrow,
            key=key_head,
        )
        pooler = FirstToken(width, width, jnp.tanh, key=key_pooler) if config.pooler else None
        super().__init__(config, embed, self.make_layers(config, key_layers), pooler=pooler, head=head)

    @staticmethod
    def make_layers(config: Any, key: jax.Array) -> Any:
        """All layers, stacked."""
        return stack(lambda key: layer(config, key=key), config.num_hidden_layers)(key)


def layer(config: Config, *, key: jax.Array) -> Layer:
    """One layer of BERT."""
    keys = jax.random.split(key)
    attention = Attention(config.hidden_size, config.num_attention_heads, key=keys[0])
    mlp = MLP(config.hidden_size, config.intermediate_size, config.hidden_act, key=keys[1])
    return Layer(attention, mlp, lambda: eqx.nn.LayerNorm(config.hidden_size, config.layer_norm_eps), norm_first=False)


_RULES = (
    "embeddings.{word|position|token_type}_embeddings.weight -> embed.{token|position|type}.weight",
    "embeddings.LayerNorm.{weight|bias} -> embed.norm.{weight|bias}",
    "encoder.layer.{l}.attention.self.{query|key|value}.** -> layers.attention.{query|key|value}.**",
    "encoder.layer.{l}.attention.output.dense.** -> layers.attention.out.**",
    "encoder.layer.{l}.attention.output.LayerNorm.{weight|bias} -> layers.norm1.{weight|bias}",
    "encoder.layer.{l}.intermediate.dense.** -> layers.mlp.up.**",
    "encoder.layer.{l}.output.dense.** -> layers.mlp.down.**",
    "encoder.layer.{l}.output.LayerNorm.{weight|bias} -> layers.norm2.{weight|bias}",
)
_FIRST_RELEASE = (  # what old files still hold
    "embeddings.LayerNorm.{gamma|beta} -> embed.norm.{weight|bias}",
    "encoder.layer.{l}.attention.output.LayerNorm.{gamma|beta} -> layers.norm1.{weight|bias}",
    "encoder.layer.{l}.output.LayerNorm.{gamma|beta} -> layers.norm2.{weight|bias}",
    "embeddings.position_ids -> _",  # 0, 1, 2 …
)


HEAD_KEYS: Mapping[str, str] = {
    "masked_lm": "cls.predictions.transform.dense.weight",
    "question_answering": "qa_outputs.weight",
    "sequence_classification": "classifier.weight",
    "token_classification": "classifier.weight",
}
"""A key of each head that there is."""


def rules(config: Config) -> list[str]:
    """Which key is which leaf, for `BertModel` and for models that hold it as `bert.`, in old spelling and new.

    A head of pre-training (`cls.`) that the model does not have is dropped. A head that a model was fine-tuned for is
    not: name it in `allow_unexpected=["classifier.**"]` to leave it behind.
    """
    return [*encoder_rules(config, prefix="bert."), *head_rules(config)]


def head_rules(config: Config) -> list[str]:
    """The rules of the head, for models that have BERT's under BERT's names."""
    if config.head != "masked_lm":
        return [*HEAD_RULES.get(config.head, ()), "cls.** -> _"]
    transform = "cls.predictions.transform"
    return [
        f"{transform}.dense.** -> head.dense.**",
        f"{transform}.LayerNorm.{{weight|bias}} -> head.norm.{{weight|bias}}",
        *only_read([f"{transform}.LayerNorm.{{gamma|beta}} -> head.norm.{{weight|bias}}"]),
        "cls.predictions.bias -> head.bias",
        "cls.predictions.decoder.bias -> head.bias ; tie=true",
        "cls.predictions.decoder.weight -> embed.token.weight ; tie=true",
        "cls.seq_relationship.** -> _",  # whether a sentence follows: asked in pre-training alone
    ]


def encoder_rules(config: Config, *, prefix: str) -> list[str]:
    """The rules of the encoder alone, and of models whose keys for it begin with `prefix`."""
    today = [*_RULES, "pooler.dense.** -> pooler.**" if config.pooler else "pooler.** -> _"]
    return today + only_read([*_FIRST_RELEASE, *(prefix + rule for rule in (*today, *_FIRST_RELEASE))])


def parts_of(keys: Iterable[str]) -> dict[str, bool]:
    """Which parts a checkpoint of these keys has, and no config.json says: keywords of `Config.from_dict`."""
    return {"pooler": any(key.endswith("pooler.dense.weight") for key in keys)}
