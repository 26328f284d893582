"""Qwen3: norms of each head, heads wider than the model divides into."""

from __future__ import annotations

import pytest

from tests.models.contract import DecoderContract
from tests.models.test_llama import ODD

pytestmark = pytest.mark.torch


class TestQwen3(DecoderContract):
    model_type = "qwen3"
    kind = "Qwen3ForCausalLM"
    variants = {
        "wide heads": ODD | {"head_dim": 10},
        "tied, biases, windows": ODD
        | {"head_dim": 8, "tie_word_embeddings": True, "attention_bias": True}
        | {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
    }
    refused = {"hidden_act": "gelu_fast", "attention_bias": 1, "sliding_window": "5"}
