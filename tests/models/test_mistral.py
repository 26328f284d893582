"""Mistral: layers that see as far as a window, or everything."""

from __future__ import annotations

import pytest

from tests.models.contract import DecoderContract
from tests.models.test_llama import ODD

pytestmark = pytest.mark.torch


class TestMistral(DecoderContract):
    model_type = "mistral"
    kind = "MistralForCausalLM"
    variants = {
        "a window of 5": ODD | {"sliding_window": 5},
        "no window, wide heads, tied": ODD | {"sliding_window": None, "head_dim": 6, "tie_word_embeddings": True},
    }
    refused = {"sliding_window": 0, "hidden_act": "mish", "attention_bias": True, "layer_types": ["full_attention"] * 3}
