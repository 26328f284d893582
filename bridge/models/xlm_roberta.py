"""XLM-RoBERTa: RoBERTa with a vocabulary for a hundred languages (https://arxiv.org/abs/1911.02116).

model = bridge.models.from_pretrained("FacebookAI/xlm-roberta-base")
hidden = model(tokens, mask)  # (seq,), (seq,) -> (seq, d); a batch by jax.vmap
"""

from __future__ import annotations

from dataclasses import dataclass

from bridge.models import roberta
from bridge.models.roberta import HEAD_KEYS as HEAD_KEYS
from bridge.models.roberta import parts_of as parts_of
from bridge.models.roberta import rules as rules


@dataclass(frozen=True)
class Config(roberta.Config):
    """The fields of `roberta.Config`."""

    model_types = ("xlm-roberta",)


class XLMRoberta(roberta.Roberta):
    """The encoder: `roberta.Roberta`."""

    __init__ = roberta.Roberta.__init__
