"""Qwen2: biases of queries, keys and values; windows in some layers."""

from __future__ import annotations

import pytest

from tests.models.contract import DecoderContract
from tests.models.test_llama import ODD

pytestmark = pytest.mark.torch


class TestQwen2(DecoderContract):
    model_type = "qwen2"
    kind = "Qwen2ForCausalLM"
    variants = {
        "plain": ODD,
        "tied, windows from layer 2 on": ODD
        | {"tie_word_embeddings": True, "use_sliding_window": True, "sliding_window": 5, "max_window_layers": 2},
        "windows in every layer": ODD | {"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 0},
    }
    refused = {
        "layer_types": ["full_attention", "chunked_attention", "full_attention"],
        "use_mrope": True,
        "rope_parameters.rope_type": "spiral",
        "max_window_layers": -1,
    }
