"""Nomic BERT: rotary positions, gated MLPs, the Hub's spelling of config and keys and transformers' own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import bridge
import bridge.models
from bridge.models.nomic_bert import Config
from bridge.models.rope import Rope
from tests.models.contract import Case
from tests.models.encoder_contract import EncoderContract

pytestmark = pytest.mark.torch

ODD: dict[str, Any] = {
    "vocab_size": 31,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "max_position_embeddings": 16,
}
SCALED = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1000.0}
HUB: dict[str, Any] = {
    "activation_function": "swiglu",
    "architectures": ["NomicBertModel"],
    "attn_pdrop": 0.0,
    "auto_map": {"AutoModel": "modeling_hf_nomic_bert.NomicBertModel"},
    "bos_token_id": None,
    "causal": False,
    "dense_seq_output": True,
    "embd_pdrop": 0.0,
    "eos_token_id": None,
    "fused_bias_fc": True,
    "fused_dropout_add_ln": True,
    "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-12,
    "max_trained_positions": 16,
    "mlp_fc1_bias": False,
    "mlp_fc2_bias": False,
    "model_type": "nomic_bert",
    "n_embd": 24,
    "n_head": 3,
    "n_inner": 20,
    "n_layer": 3,
    "n_positions": 64,
    "pad_vocab_size_multiple": 1,
    "parallel_block": False,
    "parallel_block_tied_norm": False,
    "prenorm": False,
    "qkv_proj_bias": False,
    "reorder_and_upcast_attn": False,
    "resid_pdrop": 0.0,
    "rotary_emb_base": 1000,
    "rotary_emb_fraction": 1.0,
    "rotary_emb_interleaved": False,
    "rotary_emb_scale_base": None,
    "rotary_scaling_factor": None,
    "scale_attn_by_inverse_layer_idx": False,
    "scale_attn_weights": True,
    "summary_activation": None,
    "summary_first_dropout": 0.0,
    "summary_proj_to_labels": True,
    "summary_type": "cls_index",
    "summary_use_proj": True,
    "torch_dtype": "float32",
    "transformers_version": "4.37.2",
    "type_vocab_size": 2,
    "use_cache": True,
    "use_flash_attn": True,
    "use_rms_norm": False,
    "use_xentropy": True,
    "vocab_size": 31,
}


class TestNomicBert(EncoderContract):
    model_type = "nomic_bert"
    kind = "NomicBertModel"
    prefix = "nomic_bert"
    variants = {
        "odd": ODD | {"rope_parameters": SCALED},
        "square, gelu": ODD | {"intermediate_size": 24, "hidden_act": "gelu", "num_hidden_layers": 1},
    }
    refused = {"hidden_act": "swish", "head_dim": 6}
    heads = ("ForMaskedLM", "ForSequenceClassification", "ForTokenClassification")
    pooled = False

    def test_a_text_that_fills_every_position(self, first: Case):
        tokens = np.arange(45, dtype=np.int32) % 31  # more than it was trained for: angles are scaled
        self.compare(first.ours, first.theirs, tokens, np.ones_like(tokens), np.zeros_like(tokens))

    def test_the_hubs_config_says_the_same(self, first: Case, tmp_path: Path):
        (tmp_path / "model.safetensors").write_bytes((first.folder / "model.safetensors").read_bytes())
        (tmp_path / "config.json").write_text(json.dumps(HUB | {"rotary_scaling_factor": 2}))
        ours = bridge.models.from_pretrained(tmp_path)
        assert ours.config.max_position_embeddings == 64
        assert ours.config.rope == first.ours.config.rope
        self.compare(ours, first.theirs, *first.example)

    def test_keys_as_transformers_has_them_in_memory(self, first: Case, tmp_path: Path):
        first.theirs.save_pretrained(tmp_path, save_original_format=False)
        held = load_file(tmp_path / "model.safetensors")
        save_file({f"nomic_bert.{key}": x for key, x in held.items()}, tmp_path / "model.safetensors")
        ours = bridge.models.from_pretrained(tmp_path)
        assert all(np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (ours, first.ours)), strict=True))

    def test_a_head_without_biases(self, tmp_path: Path):
        """As the Hub's code makes it: its layers have none where MLPs have none."""
        import torch

        theirs = self.saved(tmp_path, "NomicBertForMaskedLM", **ODD)
        with torch.no_grad():
            theirs.cls.predictions.transform.dense.bias.zero_()
            theirs.cls.predictions.decoder.bias.zero_()
        tensors = load_file(tmp_path / "model.safetensors")
        for key in ("cls.predictions.bias", "cls.predictions.transform.dense.bias"):
            del tensors[key]
        tensors = {key.replace("nomic_bert.", "bert."): x for key, x in tensors.items()}
        save_file(tensors, tmp_path / "model.safetensors")
        (tmp_path / "config.json").write_text(json.dumps(HUB | {"architectures": ["NomicBertForMaskedLM"]}))
        ours = bridge.models.from_pretrained(tmp_path)
        hidden = np.random.default_rng(0).standard_normal((7, 24)).astype(np.float32)
        expected = theirs.cls(torch.tensor(hidden)).detach().numpy()
        assert np.abs(np.asarray(ours.logits(jnp.asarray(hidden))) - expected).max() < 1e-5


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("activation_function", "gelu"),
        ("n_head", 5),
        ("qkv_proj_bias", True),
        ("mlp_fc2_bias", None),
        ("prenorm", True),
        ("rotary_emb_fraction", 0.5),
        ("rotary_emb_interleaved", True),
        ("rotary_emb_scale_base", 512),
        ("use_rms_norm", True),
        ("num_experts", 8),
    ],
)
def test_what_the_hubs_config_may_not_say(field: str, value: Any):
    with pytest.raises(bridge.CheckpointError, match=f"field '{field}' is "):
        Config.from_dict(HUB | {field: value})


def test_rows_of_the_embedding_are_a_multiple():
    assert Config.from_dict(HUB | {"pad_vocab_size_multiple": 64}).vocab_size == 64
    assert Config.from_dict(HUB).rope == Rope(1000.0)
