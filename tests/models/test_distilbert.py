"""DistilBERT: no token types, no pooler."""

from __future__ import annotations

from typing import Any

import pytest

from tests.models.encoder_contract import EncoderContract

pytestmark = pytest.mark.torch

ODD: dict[str, Any] = {
    "vocab_size": 31,
    "dim": 24,
    "n_layers": 3,
    "n_heads": 3,
    "hidden_dim": 40,
    "max_position_embeddings": 20,
}


class TestDistilBert(EncoderContract):
    model_type = "distilbert"
    kind = "DistilBertModel"
    prefix = "distilbert"
    variants = {
        "odd": ODD,
        "square, sinusoidal": ODD | {"dim": 16, "hidden_dim": 16, "n_heads": 2, "activation": "relu"},
    }
    refused = {"activation": "swish", "n_heads": 5}
    pooled = False
