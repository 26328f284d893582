"""Models whose weights are what PyTorch saved: the same model as from safetensors, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import pytest
import torch
from safetensors.torch import save_file

import bridge

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("root", [None, "state_dict"])
def test_a_decoder(tied: bool, root: str | None, tmp_path: Path):
    import transformers

    fields = {"vocab_size": 50, "hidden_size": 8, "intermediate_size": 12, "max_position_embeddings": 64}
    fields |= {"num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.LlamaConfig(**fields, tie_word_embeddings=tied)
    state = transformers.LlamaForCausalLM(config).state_dict()
    same = state["lm_head.weight"].data_ptr() == state["model.embed_tokens.weight"].data_ptr()
    assert same is tied
    for folder in ("torch", "safe"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config.json").write_text(json.dumps(config.to_dict()))
    held = state if root is None else {root: dict(state), "ema": dict(state), "epoch": 1}
    torch.save(held, tmp_path / "torch" / "pytorch_model.bin")
    save_file({key: tensor.clone() for key, tensor in state.items()}, tmp_path / "safe" / "model.safetensors")
    ours = bridge.models.from_pretrained(tmp_path / "torch", root=root)
    theirs = bridge.models.from_pretrained(tmp_path / "safe")
    found, wanted = (jax.tree.leaves(model) for model in (ours, theirs))
    assert len(found) == len(wanted) > 5
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == other.dtype
        assert one.tobytes() == other.tobytes()
