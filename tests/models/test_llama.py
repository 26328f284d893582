"""Llama: grouped heads, widths of its own, biases, ties, scaled rotary positions, old spellings of the config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bridge
import bridge.models
from bridge.models.config import Fields
from bridge.models.llama import Config
from bridge.models.rope import Rope
from tests.models.contract import DecoderContract, compiled

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
        "rope_parameters.rope_type": "spiral",
        "rope_parameters.beta_fast": 32,
        "rope_scaling": {"type": "spiral", "factor": 2.0},
        "partial_rotary_factor": 0.5,
        "num_key_value_heads": 4,
        "head_dim": 5,
    }


FIELDS = ODD | {"model_type": "llama", "hidden_size": 32, "num_attention_heads": 4}


@pytest.mark.parametrize("parameters", [{"rope_type": "default", "rope_theta": 1e4}, LINEAR, LLAMA3])
def test_frequencies_are_those_of_transformers(parameters: dict[str, Any]):
    """At the widths and lengths of real models: what differs in the last bit is a visible angle 100,000 tokens on."""
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    config = LlamaConfig(head_dim=128, max_position_embeddings=8192, rope_parameters=dict(parameters))
    expected = LlamaRotaryEmbedding(config).inv_freq.numpy()
    fields = Fields({"rope_parameters": parameters})
    found = Rope.of(fields, theta=1.0, positions=8192).frequencies(128)
    assert found.dtype == np.float32
    assert np.abs(found / expected - 1).max() < 3e-7


@pytest.mark.parametrize(
    ("older", "today"),
    [
        ({"rope_theta": 5e5, "rope_scaling": None}, {"rope_type": "default", "rope_theta": 5e5}),
        ({}, {"rope_type": "default", "rope_theta": 1e4}),
        ({"rope_scaling": {"type": "linear", "factor": 4.0}}, LINEAR),
        ({"rope_theta": 5e5, "rope_scaling": {k: v for k, v in LLAMA3.items() if k != "rope_theta"}}, LLAMA3),
        ({"rope_scaling": {"rope_type": "linear", "type": "linear", "factor": 4.0}}, {"factor": 4, "type": "linear"}),
    ],
)
def test_positions_as_older_releases_wrote_them(older: dict[str, Any], today: dict[str, Any]):
    assert Config.from_dict(FIELDS | older) == Config.from_dict(FIELDS | {"rope_parameters": today})


def test_what_llama_3_2_and_its_kin_write_is_understood():
    """Fields of files on the Hub, of several releases of transformers and of models that were made into this shape."""
    more: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": 128000,
        "eos_token_id": [128001, 128008],
        "initializer_range": 0.02,
        "is_llama_config": True,
        "pretraining_tp": 1,
        "rope_interleaved": False,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.45.0.dev0",
        "use_cache": True,
        "_name_or_path": "x",
    }
    config = Config.from_dict(FIELDS | more | {"num_key_value_heads": None, "head_dim": None})
    assert config.num_key_value_heads == 4
    assert config.head_dim == 8


def test_both_spellings_of_positions_at_once_are_refused():
    both = {"rope_parameters": LINEAR, "rope_scaling": {"type": "linear", "factor": 2.0}}
    with pytest.raises(bridge.CheckpointError) as caught:
        Config.from_dict(FIELDS | both)
    assert caught.value.statement == (
        '\'config.json\': field \'rope_scaling\' is {"type": "linear", "factor": 2.0}, '
        "expected null, because 'rope_parameters' is set too"
    )


def test_a_float64_model_computes_in_float64(tmp_path: Path):
    """Rotary angles stay f32, as in transformers; nothing else does."""
    jax.config.update("jax_enable_x64", True)
    try:
        case = TestLlama.case("grouped heads", tmp_path)
        ours = bridge.models.from_pretrained(tmp_path, dtype=jnp.float64)
        logits = compiled(lambda model, tokens: {"logits": model(tokens)}, ours, *case.example)["logits"]
        assert logits.dtype == jnp.float64
        single = TestLlama.judge(case.theirs, *case.example)["logits"]
        assert np.abs(np.asarray(logits) - single).max() < 1e-5
    finally:
        jax.config.update("jax_enable_x64", False)
