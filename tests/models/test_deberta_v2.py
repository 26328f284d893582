"""DeBERTa v2 and v3: distances that share rows or do not, a convolution, absolute positions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import bridge
import bridge.models
from bridge.models import deberta_v2
from bridge.models.disentangled import distance_buckets
from tests.models.contract import Case, compiled
from tests.models.encoder_contract import EncoderContract

pytestmark = pytest.mark.torch

ODD: dict[str, Any] = {
    "vocab_size": 31,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 20,
}
V3 = ODD | {
    "relative_attention": True,
    "position_buckets": 6,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": "p2c|c2p",
    "position_biased_input": False,
}


class TestDebertaV2(EncoderContract):
    model_type = "deberta-v2"
    kind = "DebertaV2Model"
    prefix = "deberta"
    variants = {
        "v3": V3,
        "v2-xlarge, narrow, one side": V3
        | {"conv_kernel_size": 3, "conv_act": "gelu", "embedding_size": 10, "pos_att_type": ["p2c"]},
        "keys of its own, no buckets, types, positions": ODD
        | {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "max_relative_positions": 5}
        | {"type_vocab_size": 2},
    }
    refused = {
        "conv_groups": 5,
        "conv_kernel_size": 2,
        "hidden_act": "swish",
        "pooler_hidden_size": 12,
        "attention_head_size": 4,
        "pos_att_type": "p2p|c2p",
        "position_buckets": 38,
        "norm_rel_ebd": "rms_norm",
        "z_steps": 2,
    }
    pooled = False

    def test_a_text_that_fills_every_position(self, first: Case):
        """There is none: one that is longer than `max_position_embeddings` is computed like any other."""
        tokens = np.arange(50, dtype=np.int32) % 31
        self.compare(first.ours, first.theirs, tokens, np.ones_like(tokens))

    def test_hidden_words_in_both_spellings(self, tmp_path: Path):
        theirs = self.saved(tmp_path, "DebertaV2ForMaskedLM", **V3, legacy=False)
        fields, example = json.loads((tmp_path / "config.json").read_text()), self.example(theirs.config)
        ours = bridge.models.from_pretrained(tmp_path)
        found = compiled(lambda model, *each: {"logits": model.logits(model(*each))}, ours, *example)["logits"]
        assert np.abs(np.asarray(found) - self.judge_head(theirs, *example)).max() < 1e-5
        del fields["legacy"]  # as in Microsoft's own files, and true is the default
        (tmp_path / "config.json").write_text(json.dumps(fields))
        again = bridge.models.from_pretrained(tmp_path)
        assert same(again, ours)
        for model, name in ((ours, "lm_predictions.lm_head.bias"), (again, "cls.predictions.bias")):
            bridge.save(model, tmp_path / name, deberta_v2.rules(model.config))
            with bridge.open(tmp_path / name) as ckpt:
                assert name in ckpt

    def test_a_file_of_the_first_release(self, first: Case, tmp_path: Path):
        """As it came from pre-training: other names, positions that nothing reads, both heads."""
        tensors = load_file(first.folder / "model.safetensors")
        old = {
            f"deberta.{key}".replace("LayerNorm.weight", "LayerNorm.gamma").replace(
                "LayerNorm.bias", "LayerNorm.beta"
            ): x
            for key, x in tensors.items()
        }
        for name in ("lm_predictions.lm_head.dense.weight", "mask_predictions.classifier.weight"):
            old[name] = np.zeros((2, 2), np.float32)
        old |= {
            f"deberta.embeddings.{name}": np.zeros(2, np.float32)
            for name in ("position_ids", "position_embeddings.weight")
        }
        save_file(old, tmp_path / "model.safetensors")
        fields = json.loads((first.folder / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps(fields | {"architectures": None}))
        assert same(bridge.models.from_pretrained(tmp_path), first.ours)


@pytest.mark.parametrize(("reach", "farthest"), [(256, 512), (4, 9), (7, 20), (2, 512), (64, 1024)])
def test_far_distances_share_rows(reach: int, farthest: int):
    import torch
    from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

    distance = np.arange(-3 * farthest, 3 * farthest)
    expected = make_log_bucket_position(torch.tensor(distance), reach, farthest).long()
    np.testing.assert_array_equal(distance_buckets(distance, reach, farthest), expected)


def same(a: Any, b: Any) -> bool:
    """Whether two models have the same weights."""
    return jax.tree.structure(a.layers) == jax.tree.structure(b.layers) and all(
        np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )
