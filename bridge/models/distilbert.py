"""DistilBERT: a BERT of half the layers, without token types and pooler (https://arxiv.org/abs/1910.01108).

    model = bridge.models.from_pretrained("distilbert/distilbert-base-uncased-finetuned-sst-2-english")
    hidden = model(tokens, mask)  # (seq,), (seq,) -> (seq, d); a batch by jax.vmap
    scores = model.logits(hidden)  # (labels,): model.config.labels says what they are

Sinusoidal positions are stored like learned ones.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax

from bridge.models import bert
from bridge.models.config import Fields
from bridge.models.heads import HEAD_RULES, read_head
from bridge.models.layers import ACTIVATIONS, Transform
from bridge.models.spellings import only_read


@dataclass(frozen=True)
class Config(bert.Config):
    """The fields of `bert.Config`; config.json calls the width `dim`, layers `n_layers`, heads `n_heads`."""

    model_types = ("distilbert",)
    unused: ClassVar[Collection[str]] = frozenset(
        {"attention_dropout", "dropout", "qa_dropout", "seq_classif_dropout", "sinusoidal_pos_embds", "tie_weights_"}
    )
    classifier_activation: ClassVar[Transform | None] = staticmethod(jax.nn.relu)

    @classmethod
    def read(cls, fields: Fields) -> dict[str, Any]:
        """What the constructor takes."""
        width, heads = fields.count("dim"), fields.count("n_heads")
        if width % heads:
            fields.refuse("n_heads", heads, f"a divisor of {width}")
        fields.one_of("pruned_heads", [{}], default={})
        fields.one_of("position_embedding_type", ["absolute"], default="absolute")
        return {
            "vocab_size": fields.count("vocab_size"),
            "hidden_size": width,
            "num_hidden_layers": fields.count("n_layers"),
            "num_attention_heads": heads,
            "intermediate_size": fields.count("hidden_dim"),
            "max_position_embeddings": fields.count("max_position_embeddings"),
            "type_vocab_size": 0,
            "hidden_act": fields.one_of("activation", list(ACTIVATIONS), default=cls.hidden_act),
            "pooler": False,
            **read_head(fields),
        }


class DistilBert(bert.Bert):
    """The encoder: `bert.Bert`, as its config says."""

    __init__ = bert.Bert.__init__


HEAD_KEYS: Mapping[str, str] = {
    "masked_lm": "vocab_transform.weight",
    "question_answering": "qa_outputs.weight",
    "sequence_classification": "pre_classifier.weight",
    "token_classification": "classifier.weight",
}
"""A key of each head that there is."""

_RULES = (
    "embeddings.{word|position}_embeddings.weight -> embed.{token|position}.weight",
    "embeddings.LayerNorm.** -> embed.norm.**",
    "transformer.layer.{l}.attention.{q|k|v|out}_lin.** -> layers.attention.{query|key|value|out}.**",
    "transformer.layer.{l}.sa_layer_norm.** -> layers.norm1.**",
    "transformer.layer.{l}.ffn.{lin1|lin2}.** -> layers.mlp.{up|down}.**",
    "transformer.layer.{l}.output_layer_norm.** -> layers.norm2.**",
)
_MASKED_LM = (
    "vocab_transform.** -> head.dense.**",
    "vocab_layer_norm.** -> head.norm.**",
    "vocab_projector.bias -> head.bias",
    "vocab_projector.weight -> embed.token.weight ; tie=true",
)
_LEFT = ("vocab_transform.** -> _", "vocab_layer_norm.** -> _", "vocab_projector.** -> _")


def rules(config: Config) -> list[str]:
    """Which key is which leaf, for `DistilBertModel` and for models that hold it as `distilbert.`.

    A head of pre-training (`vocab_`) that the model does not have is dropped. A head that a model was fine-tuned for is
    not: name it in `allow_unexpected=["classifier.**"]` to leave it behind.
    """
    old = ["embeddings.position_ids -> _"]
    encoder = [*_RULES, *only_read([*old, *(f"distilbert.{rule}" for rule in (*_RULES, *old))])]
    if config.head == "masked_lm":
        return [*encoder, *_MASKED_LM]
    if config.head == "sequence_classification":
        return [*encoder, "{pre_classifier|classifier}.** -> head.{dense|out}.**", *_LEFT]
    return [*encoder, *HEAD_RULES.get(config.head, ()), *_LEFT]
