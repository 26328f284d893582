"""ELECTRA: a BERT whose embeddings may be narrower than its states (https://arxiv.org/abs/2003.10555).

    model = bridge.models.from_pretrained("google/electra-small-discriminator")
    hidden = model(tokens, mask)  # (seq,), (seq,) -> (seq, d); a batch by jax.vmap

The discriminator's own head (`discriminator_predictions.`), which says of each token whether it was replaced, is
dropped; the generator's is `masked_lm`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from bridge.models import bert
from bridge.models.config import Fields
from bridge.models.heads import HEAD_RULES
from bridge.models.layers import ACTIVATIONS, Transform
from bridge.models.spellings import only_read


@dataclass(frozen=True)
class Config(bert.Config):
    """The fields of `bert.Config`, and one more.

    - `embedding_size`: the width of the embeddings. Where it is not `hidden_size`, a layer leads from one to the other.
    """

    model_types = ("electra",)
    unused: ClassVar[Collection[str]] = frozenset(
        {
            *("attention_probs_dropout_prob", "classifier_dropout", "hidden_dropout_prob", "summary_activation"),
            *("summary_last_dropout", "summary_type", "summary_use_proj"),
        }
    )
    classifier_activation: ClassVar[Transform | None] = staticmethod(ACTIVATIONS["gelu"])
    lm_activation: ClassVar[str | None] = "gelu"

    embedding_size: int = 128

    @classmethod
    def read(cls, fields: Fields) -> dict[str, Any]:
        """What the constructor takes."""
        size = fields.count("embedding_size", default=cls.embedding_size)
        return super().read(fields) | {"embedding_size": size, "pooler": False}

    @property
    def embedding_width(self) -> int:
        """Of the embeddings' rows."""
        return self.embedding_size


class Electra(bert.Bert):
    """The encoder: `bert.Bert`, with embeddings as its config says."""

    __init__ = bert.Bert.__init__


HEAD_KEYS: Mapping[str, str] = {
    "masked_lm": "generator_predictions.dense.weight",
    "question_answering": "qa_outputs.weight",
    "sequence_classification": "classifier.dense.weight",
    "token_classification": "classifier.weight",
}
"""A key of each head that there is."""

_MASKED_LM = (
    "generator_predictions.dense.** -> head.dense.**",
    "generator_predictions.LayerNorm.** -> head.norm.**",
    "generator_lm_head.bias -> head.bias",
    "generator_lm_head.weight -> embed.token.weight ; tie=true",
)
_LEFT = ("discriminator_predictions.** -> _", "generator_predictions.** -> _", "generator_lm_head.** -> _")


def rules(config: Config) -> list[str]:
    """Which key is which leaf, for `ElectraModel` and for models that hold it as `electra.`.

    Heads of pre-training that the model does not have are dropped. A head that a model was fine-tuned for is not: name
    it in `allow_unexpected=["classifier.**"]` to leave it behind.
    """
    project = "embeddings_project.** -> embed.project.**"
    encoder = [*bert.encoder_rules(config, prefix="electra."), project, *only_read([f"electra.{project}"])]
    if config.head == "masked_lm":
        return [*encoder, *_MASKED_LM]
    if config.head == "sequence_classification":
        return [*encoder, "classifier.{dense|out_proj}.** -> head.{dense|out}.**", *_LEFT]
    return [*encoder, *HEAD_RULES.get(config.head, ()), *_LEFT]
