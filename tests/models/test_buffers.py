"""Tables of rotations that old files hold are no weights: models compute them."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import equinox as eqx
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import bridge
import bridge.models
from tests.models.random_model import random_model

FIELDS: dict[str, Any] = {
    "vocab_size": 11,
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "max_position_embeddings": 32,
}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "mistral": ("Mistral", {}),
    "mixtral": ("Mixtral", {"num_local_experts": 2}),
    "qwen2": ("Qwen2", {}),
    "qwen3": ("Qwen3", {}),
    "qwen3_moe": ("Qwen3MoE", {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 6}),
    "gemma3": ("Gemma3", {"model_type": "gemma3_text", "sliding_window": 5}),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_tables_of_a_whole_model_are_left_out(tmp_path: Path, name: str) -> None:
    kind, more = MODELS[name]
    module, fields = import_module(f"bridge.models.{name}"), {"model_type": name} | FIELDS | more
    config = module.Config.from_dict(fields)
    model = random_model(getattr(module, kind), config)
    bridge.save(model, tmp_path, module.rules(config))
    (tmp_path / "config.json").write_text(json.dumps(fields))
    tensors = load_file(tmp_path / "model.safetensors")
    assert not any("inv_freq" in key for key in tensors)
    tables = ("rotary_emb", "rotary_emb_local") if name == "gemma3" else ("rotary_emb",)
    more = {f"model.{table}.inv_freq": np.ones(2, "f4") for table in tables}
    save_file(tensors | more, tmp_path / "model.safetensors")
    assert eqx.tree_equal(bridge.models.from_pretrained(tmp_path), model)
