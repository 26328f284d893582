"""GPT-2: kernels turned round, a fused projection, tied heads, and the keys that old files hold."""

from __future__ import annotations

from pathlib import Path

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import bridge
from bridge.models.gpt2 import GPT2, Config
from tests.errors.promised import text_of
from tests.models.contract import NEW, TOKENS, Case, DecoderContract

pytestmark = pytest.mark.torch

ODD = {"vocab_size": 67, "n_positions": TOKENS + NEW, "n_embd": 24, "n_layer": 3, "n_head": 3}


class TestGPT2(DecoderContract):
    model_type = "gpt2"
    kind = "GPT2LMHeadModel"
    variants = {
        "tied": ODD,
        "untied, square, scores as they are": ODD
        | {
            "n_embd": 16,
            "n_head": 4,
            "n_inner": 16,
            "n_layer": 1,
            "tie_word_embeddings": False,
            "scale_attn_weights": False,
            "activation_function": "relu",
        },
        "scores by layer": ODD | {"scale_attn_by_inverse_layer_idx": True, "reorder_and_upcast_attn": True},
    }
    refused = {
        "activation_function": "swish",
        "add_cross_attention": True,
        "n_head": 5,
        "scale_attn_weights": 1,
        "layer_norm_epsilon": 0,
    }

    @pytest.mark.parametrize("prefix", ["", "transformer."])
    def test_the_keys_of_old_files(self, first: Case, tmp_path: Path, prefix: str):
        tensors = load_file(first.folder / "model.safetensors")
        old = {prefix + key.removeprefix("transformer."): value for key, value in tensors.items()}
        for l in range(3):
            old[f"{prefix}h.{l}.attn.bias"] = np.tril(np.ones((1, 1, 37, 37), np.float32))
            old[f"{prefix}h.{l}.attn.masked_bias"] = np.array(-1e4, np.float32)
        if prefix:
            old["lm_head.weight"] = tensors["transformer.wte.weight"]
        save_file(old, tmp_path / "model.safetensors")
        (tmp_path / "config.json").write_bytes((first.folder / "config.json").read_bytes())
        assert eqx.tree_equal(bridge.models.from_pretrained(tmp_path), first.ours)

    def test_a_head_that_is_not_the_embeddings_is_no_tie(self, first: Case, tmp_path: Path):
        tensors = load_file(first.folder / "model.safetensors")
        save_file(tensors | {"lm_head.weight": np.zeros((67, 24), np.float32)}, tmp_path / "model.safetensors")
        (tmp_path / "config.json").write_bytes((first.folder / "config.json").read_bytes())
        with pytest.raises(bridge.CheckpointError, match=r"lm_head\.weight"):
            bridge.models.from_pretrained(tmp_path)

    def test_more_tokens_than_positions_is_an_error(self, first: Case):
        text = (
            text_of("models: GPT-2 and too long a text").replace("21 tokens", "38 tokens").replace("the 20 ", "the 37 ")
        )
        with pytest.raises(bridge.BridgeError) as caught:
            first.ours(jnp.zeros(38, jnp.int32))
        assert str(caught.value) == text
        with pytest.raises(bridge.BridgeError) as caught:
            bridge.models.generate(first.ours, jnp.zeros(TOKENS, jnp.int32), NEW + 1)
        assert str(caught.value) == text

    def test_the_model_is_a_gpt2(self, first: Case):
        assert isinstance(first.ours, GPT2)
        assert first.ours.config == Config(vocab_size=67, n_positions=37, n_embd=24, n_layer=3, n_head=3, n_inner=96)
        assert first.ours.layers.attention.query.weight.shape == (3, 24, 24)
