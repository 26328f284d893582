"""Llama: grouped heads, widths of its own, biases, ties, scaled rotary positions, old spellings of the config."""

from __future__ import annotations

import pytest

from tests.models.contract import DecoderContract

pytestmark = pytest.mark.torch

ODD = {
    "vocab_size": 67,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LINEAR = {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}


class TestLlama(DecoderContract):
    model_type = "llama"
    kind = "LlamaForCausalLM"
    variants = {
        "grouped heads": ODD,
        "tied, one layer, llama3 positions": ODD
        | {
            "tie_word_embeddings": True,
            "num_hidden_layers": 1,
            "rope_parameters": LLAMA3 | {"original_max_position_embeddings": 16},
        },
        "biases, wide heads, linear positions": ODD
        | {"attention_bias": True, "mlp_bias": True, "head_dim": 10, "rope_parameters": LINEAR},
        "square, one head for keys": ODD
        | {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_key_value_heads": 1},
    }
    refused = {
        "hidden_act": "swish",
        "rope_parameters.rope_type": "yarn",
        "rope_parameters.beta_fast": 32,
        "rope_scaling": {"type": "dynamic", "factor": 2.0},
        "partial_rotary_factor": 0.5,
        "num_key_value_heads": 4,
        "head_dim": 5,
        "quantization_config": {"quant_method": "fp8"},
    }
