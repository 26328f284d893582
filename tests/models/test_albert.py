"""ALBERT: one layer for all."""

from __future__ import annotations

from typing import Any

import pytest

from tests.models.encoder_contract import EncoderContract

pytestmark = pytest.mark.torch

ODD: dict[str, Any] = {
    "vocab_size": 31,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 20,
}


class TestAlbert(EncoderContract):
    model_type = "albert"
    kind = "AlbertModel"
    prefix = "albert"
    variants = {"narrow": ODD | {"embedding_size": 10}, "as wide": ODD | {"embedding_size": 24, "hidden_act": "relu"}}
    refused = {"hidden_act": "swish", "num_hidden_groups": 2, "inner_group_num": 2}
