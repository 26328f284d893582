"""MPNet: what is added to scores by distance."""

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


class TestMPNet(EncoderContract):
    model_type = "mpnet"
    kind = "MPNetModel"
    prefix = "mpnet"
    variants = {
        "plain": ODD,
        "long, square": ODD | {"intermediate_size": 24, "max_position_embeddings": 300, "num_hidden_layers": 1},
    }
    refused = {"hidden_act": "swish", "relative_attention_num_buckets": 16}
