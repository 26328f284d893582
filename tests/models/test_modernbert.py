"""ModernBERT: windows, two sorts of angles, a first layer without a norm, heads with a layer of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import bridge
import bridge.models
from bridge.models.modernbert import Config
from tests.models.contract import Case
from tests.models.encoder_contract import EncoderContract

pytestmark = pytest.mark.torch

SPECIAL = dict.fromkeys(("bos_token_id", "cls_token_id", "eos_token_id", "sep_token_id"), 1)
ODD: dict[str, Any] = SPECIAL | {
    "vocab_size": 31,
    "hidden_size": 24,
    "num_hidden_layers": 4,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "max_position_embeddings": 20,
    "pad_token_id": 0,
    "local_attention": 5,
    "classifier_pooling": "mean",
}
BIASES = dict.fromkeys(("norm_bias", "attention_bias", "mlp_bias", "classifier_bias"), True)
ROPES = {
    "full_attention": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 500.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
}


class TestModernBert(EncoderContract):
    model_type = "modernbert"
    kind = "ModernBertModel"
    prefix = "model"
    variants = {
        "odd": ODD,
        "biases, square, scaled": ODD
        | BIASES
        | {
            "intermediate_size": 12,
            "layer_types": ["sliding_attention", "full_attention"],
            "num_hidden_layers": 2,
            "max_position_embeddings": 8,
            "rope_parameters": ROPES,
            "classifier_pooling": "cls",
            "decoder_bias": False,
        },
    }
    refused = {
        "hidden_activation": "swish",
        "classifier_pooling": "max",
        "num_attention_heads": 5,
        "rope_scaling": {"rope_type": "linear", "factor": 2.0},
        "rope_parameters.rope_type": "default",
    }
    pooled = False

    def test_a_text_that_fills_every_position(self, first: Case):
        tokens = np.arange(45, dtype=np.int32) % 31  # more than it was trained for
        self.compare(first.ours, first.theirs, tokens, np.ones_like(tokens))

    @pytest.mark.parametrize("what", ["ForMaskedLM", "ForSequenceClassification"])
    def test_heads_with_biases_and_without(self, what: str, tmp_path: Path):
        import torch

        theirs = self.saved(tmp_path, f"ModernBert{what}", **self.variants["biases, square, scaled"])
        ours = bridge.models.from_pretrained(tmp_path)
        hidden = np.random.default_rng(0).standard_normal((7, 24)).astype(np.float32)
        tokens = theirs.head(torch.tensor(hidden))
        expected = theirs.decoder(tokens) if what == "ForMaskedLM" else theirs.classifier(tokens[0])
        assert np.abs(np.asarray(ours.logits(jnp.asarray(hidden))) - expected.detach().numpy()).max() < 1e-5

    def test_one_layer(self, tmp_path: Path):
        theirs = self.saved(tmp_path, **{**ODD, "num_hidden_layers": 1})
        ours = bridge.models.from_pretrained(tmp_path)
        self.compare(ours, theirs, *self.example(theirs.config))

    def test_the_hubs_files_say_the_same_otherwise(self, first: Case):
        today = json.loads((first.folder / "config.json").read_text())
        old = {name: value for name, value in today.items() if name not in ("layer_types", "rope_parameters")}
        old |= {"global_attn_every_n_layers": 3, "global_rope_theta": 160000.0, "local_rope_theta": 10000.0}
        assert Config.from_dict(old) == first.ours.config
        other = Config.from_dict(old | {"global_attn_every_n_layers": 2, "local_rope_theta": None})
        assert other.full == (True, False, True, False)
        assert other.rope_local == other.rope
