"""ELECTRA: embeddings that are narrower than states, or as wide."""

from __future__ import annotations

from typing import Any

import pytest

from tests.models.encoder_contract import EncoderContract

pytestmark = pytest.mark.torch

ODD: dict[str, Any] = {
    "vocab_size": 31,
    "embedding_size": 10,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 20,
}


class TestElectra(EncoderContract):
    model_type = "electra"
    kind = "ElectraModel"
    prefix = "electra"
    variants = {"narrow": ODD, "as wide": ODD | {"embedding_size": 24, "type_vocab_size": 4}}
    refused = {"hidden_act": "swish", "is_decoder": True}
    pooled = False
