"""RoBERTa, and XLM-RoBERTa: a BERT whose positions skip padding and begin behind it (https://arxiv.org/abs/1907.11692).

    model = bridge.models.from_pretrained("FacebookAI/xlm-roberta-base")
    hidden = model(tokens, mask)  # (seq,), (seq,) -> (seq, d); a batch by jax.vmap

XLM-RoBERTa differs in its vocabulary alone, so both load here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from bridge.models import bert
from bridge.models.bert import parts_of as parts_of
from bridge.models.config import Fields
from bridge.models.heads import HEAD_RULES, masked_lm_rules
from bridge.models.layers import Transform


@dataclass(frozen=True)
class Config(bert.Config):
    """What makes one RoBERTa differ from another: the fields of `bert.Config`, and one more.

    - `pad_token_id`: the id that padding has. It takes a row of the position embedding, and no row before it is used.
    """

    model_types = ("roberta", "xlm-roberta")
    classifier_activation: ClassVar[Transform | None] = staticmethod(jnp.tanh)
    lm_activation: ClassVar[str | None] = "gelu"

    pad_token_id: int = 1

    @property
    def max_tokens(self) -> int:
        """How many tokens there are positions for: 512, where `max_position_embeddings` is 514."""
        return self.max_position_embeddings - self.pad_token_id - 1

    def positions(self, tokens: jax.Array) -> jax.Array:
        """Padding's own id for padding, wherever it stands; the others are numbered from behind it."""
        text = (tokens != self.pad_token_id).astype(jnp.int32)
        return jnp.cumsum(text) * text + self.pad_token_id

    @classmethod
    def read(cls, fields: Fields) -> dict[str, Any]:
        """What the constructor takes."""
        taken = super().read(fields)
        pad = fields.whole("pad_token_id", default=cls.pad_token_id)
        rows = min(taken["vocab_size"], taken["max_position_embeddings"] - 1)
        if pad >= rows:
            fields.refuse(
                "pad_token_id",
                pad,
                f"an id below {rows}: the embeddings of words and of positions both have a row for it",
            )
        return taken | {"pad_token_id": pad}


class Roberta(bert.Bert):
    """The encoder: `bert.Bert`, with positions as its config says."""

    __init__ = bert.Bert.__init__


HEAD_KEYS: Mapping[str, str] = {
    "masked_lm": "lm_head.dense.weight",
    "question_answering": "qa_outputs.weight",
    "sequence_classification": "classifier.dense.weight",
    "token_classification": "classifier.weight",
}
"""A key of each head that there is."""


def rules(config: Config) -> list[str]:
    """Which key is which leaf, for `RobertaModel` and for models that hold it as `roberta.`.

    A head of pre-training (`lm_head.`) that the model does not have is dropped. A head that a model was fine-tuned for
    is not: name it in `allow_unexpected=["classifier.**"]` to leave it behind.
    """
    return [*bert.encoder_rules(config, prefix="roberta."), *_head_rules(config)]


def _head_rules(config: Config) -> list[str]:
    if config.head == "masked_lm":
        return masked_lm_rules("lm_head")
    if config.head == "sequence_classification":
        return ["classifier.{dense|out_proj}.** -> head.{dense|out}.**", "lm_head.** -> _"]
    return [*HEAD_RULES.get(config.head, ()), "lm_head.** -> _"]
