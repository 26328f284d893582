"""DeBERTa, the first: fused projections, a row for each distance."""

from __future__ import annotations

from typing import Any

import pytest

from tests.models.contract import Case
from tests.models.encoder_contract import EncoderContract

pytestmark = pytest.mark.torch

ODD: dict[str, Any] = {
    "vocab_size": 31,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 20,
    "relative_attention": True,
}


class TestDeberta(EncoderContract):
    model_type = "deberta"
    kind = "DebertaModel"
    prefix = "deberta"
    variants = {
        "both sides": ODD | {"pos_att_type": ["p2c", "c2p"]},
        "one side, near, types, narrow": ODD
        | {"pos_att_type": "c2p", "max_relative_positions": 5, "type_vocab_size": 2, "embedding_size": 10},
    }
    refused = {"talking_head": True, "position_buckets": 6, "share_att_key": True, "pos_att_type": "none"}
    pooled = False

    @classmethod
    def in_bfloat16(cls, case: Case) -> Any:
        """transformers loads two biases in f32, and then multiplies f32 by bfloat16, which PyTorch refuses."""
        return super().in_bfloat16(case).bfloat16()
