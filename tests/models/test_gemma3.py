"""Gemma 3: local layers and global ones, two speeds of turning, norms that store what they are more than 1."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bridge
from bridge.models.gemma3 import Config, Gemma3, rules
from bridge.models.rope import Rope
from tests.models.contract import DecoderContract, compiled, refusal_of
from tests.models.test_llama import ODD

pytestmark = pytest.mark.torch

KEY = jax.random.key(0)
GEMMA = ODD | {"head_dim": 8, "sliding_window": 5, "query_pre_attn_scalar": 12}


class TestGemma3(DecoderContract):
    model_type = "gemma3_text"
    kind = "Gemma3ForCausalLM"
    variants = {
        "two groups and a tail": GEMMA | {"num_hidden_layers": 8, "sliding_window_pattern": 3},
        "no tail, untied, biases, linear positions": GEMMA
        | {"num_hidden_layers": 4, "sliding_window_pattern": 2, "tie_word_embeddings": False, "attention_bias": True}
        | {
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e4},
                "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
            }
        },
        "a tail only": GEMMA | {"num_hidden_layers": 2},
        "full layers only": GEMMA | {"num_hidden_layers": 2, "sliding_window_pattern": 1},
    }
    refused = {
        "layer_types": ["full_attention"] * 2 + ["sliding_attention"] * 6,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
        "use_bidirectional_attention": True,
        "rope_parameters.sliding_attention.rope_type": "spiral",
        "rope_parameters.chunked_attention": {"rope_type": "default"},
        "hidden_activation": "gelu_fast",
    }


IMAGES = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


class OfImages(DecoderContract):
    """Only its cases: what is left behind is not saved back."""

    model_type = "gemma3"
    kind = "Gemma3ForConditionalGeneration"
    variants = {
        "its text": {
            "text_config": GEMMA | {"num_hidden_layers": 4, "sliding_window_pattern": 3},
            "vision_config": IMAGES | {"image_size": 8, "patch_size": 4},
            "mm_tokens_per_image": 4,
            "image_token_index": 66,
        }
    }

    @classmethod
    def example(cls, config: Any, seed: int = 1) -> tuple[np.ndarray, ...]:
        return super().example(config.text_config, seed)


def test_the_text_of_a_model_that_sees_images(tmp_path: Path):
    case = OfImages.case("its text", tmp_path)
    expected = OfImages.judge(case.theirs, *case.example)
    for name, value in compiled(OfImages.run, case.ours, *case.example).items():
        assert np.abs(np.asarray(value) - expected[name]).max() < 1e-5, name
    plan = bridge.plan(tmp_path, case.ours, rules(case.ours.config))
    assert {key.split(".")[0] for key in plan.dropped} == {"vision_tower", "multi_modal_projector"}
    (tmp_path / "changed").mkdir()
    for field, value in {
        "text_config.final_logit_softcapping": 30.0,
        "tie_word_embeddings": False,
    }.items():
        assert f"field '{field}' is " in refusal_of(tmp_path, tmp_path / "changed", field, value)


def test_the_config_of_gemma_3_1b_as_the_hub_has_it():
    old = Config.from_dict(
        {
            "model_type": "gemma3_text",
            "num_hidden_layers": 26,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
            "rope_theta": 1_000_000,
            "rope_local_base_freq": 10_000,
            "sliding_window": 512,
            "sliding_window_pattern": 6,
            "cache_implementation": "hybrid",
        }
    )
    assert (old.groups, old.pattern, old.sliding_window, old.tie_word_embeddings) == (4, 6, 512, True)
    assert (old.rope, old.rope_local) == (Rope(1e6, "linear", 8.0), Rope(1e4))
    new = Config.from_dict(
        {
            "num_hidden_layers": 26,
            "sliding_window": 512,
            "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 4 + ["sliding_attention"] * 2,
            "rope_parameters": {
                "full_attention": {"factor": 8.0, "rope_type": "linear", "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            },
        }
    )
    assert new == old


def test_local_layers_remember_their_window_and_no_more():
    model = eqx.filter_eval_shape(Gemma3, Config.from_dict({"num_hidden_layers": 8, "sliding_window": 512}), key=KEY)
    _, memory = jax.eval_shape(lambda m, t: m.prefill(t, jnp.int32(9), 4096), model, jnp.zeros(16, jnp.int32))
    assert memory.local.k.shape == (1, 5, 512, 4, 256)
    assert memory.full.k.shape == (1, 4096, 4, 256)
    assert memory.tail.k.shape == (2, 512, 4, 256)
