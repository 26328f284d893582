"""Qwen3-MoE: norms of heads, many small experts, shares that add up to 1 or do not."""

from __future__ import annotations

import json
from pathlib import Path

import equinox as eqx
import pytest
from safetensors.numpy import load_file

import bridge
import bridge.models
from bridge.models.qwen3_moe import Config, Qwen3MoE, rules
from tests.models.contract import Case, DecoderContract
from tests.models.random_model import random_model

pytestmark = pytest.mark.torch

ODD = {
    "vocab_size": 67,
    "hidden_size": 24,
    "intermediate_size": 40,
    "moe_intermediate_size": 8,  # rows of 16 bytes in bf16, as PyTorch's grouped product wants them
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 10,
    "num_experts": 7,
    "num_experts_per_tok": 3,
    "norm_topk_prob": True,
    "max_position_embeddings": 64,
}


class TestQwen3MoE(DecoderContract):
    model_type = "qwen3_moe"
    kind = "Qwen3MoeForCausalLM"
    variants = {
        "three of seven": ODD,
        "shares as they are, biases, tied, a window": ODD
        | {
            "norm_topk_prob": False,
            "attention_bias": True,
            "tie_word_embeddings": True,
            "use_sliding_window": True,
            "sliding_window": 5,
            "num_hidden_layers": 2,
        },
        "layers without experts": ODD | {"num_hidden_layers": 5, "decoder_sparse_step": 2, "mlp_only_layers": [3]},
    }
    refused = {
        "hidden_act": "swish",
        "decoder_sparse_step": 0,
        "mlp_only_layers": ["0"],
        "num_experts_per_tok": 8,
        "num_experts": 8,  # beside another num_local_experts
    }

    def test_the_layout_that_transformers_has_in_memory_is_the_same_model(self, first: Case, tmp_path: Path):
        first.theirs.save_pretrained(tmp_path, save_original_format=False)
        assert "model.layers.0.mlp.experts.gate_up_proj" in load_file(tmp_path / "model.safetensors")
        assert eqx.tree_equal(bridge.models.from_pretrained(tmp_path), first.ours)


def test_both_names_of_the_number_of_experts_are_understood():
    fields = {**ODD, "use_sliding_window": False, "max_window_layers": 48, "sliding_window": None}
    config = Config.from_dict(fields)
    assert config.num_local_experts == 7
    assert Config.from_dict({**fields, "num_local_experts": 7}) == config
    del fields["num_experts"]
    assert Config.from_dict({**fields, "num_local_experts": 7}) == config
    with pytest.raises(bridge.CheckpointError, match="lacks field 'num_local_experts'"):
        Config.from_dict(fields)


def test_layers_of_one_kind_are_one_stack(tmp_path: Path):
    every = Config.from_dict(ODD | {"mlp_only_layers": [0, 1, 2, 7]})
    assert every.dense_layers == (0, 1, 2)
    model = random_model(Qwen3MoE, every)
    assert model.layers.mlp.gate.weight.shape == (3, 40, 24)
    bridge.save(model, tmp_path, rules(every))
    assert "model.layers.2.mlp.gate_proj.weight" in load_file(tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(ODD | {"model_type": "qwen3_moe", "decoder_sparse_step": 4}))
    assert eqx.tree_equal(bridge.models.from_pretrained(tmp_path), model)  # no layer is a fourth one
    none = Config.from_dict(ODD | {"mlp_only_layers": None})
    assert none == Config.from_dict(ODD | {"decoder_sparse_step": 1, "mlp_only_layers": []})
    assert none.sparse_layers == (0, 1, 2)
