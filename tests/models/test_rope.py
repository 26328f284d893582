"""Scalings of rotary positions against transformers' own functions."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import bridge
from bridge.models.config import Fields
from bridge.models.rope import Rope, RotaryAngles

pytestmark = pytest.mark.torch

POSITIONS, HEAD_DIM = 64, 16
SCALINGS: dict[str, dict[str, Any]] = {
    "linear": {"rope_type": "linear", "factor": 4.0},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    },
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
    "yarn, all said": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 16,
        "beta_fast": 8,
        "beta_slow": 2,
        "mscale": 0.7,
        "mscale_all_dim": 1.2,
        "truncate": False,
    },
    "yarn, an attention factor": {"rope_type": "yarn", "factor": 2.0, "attention_factor": 1.5},
    "dynamic": {"rope_type": "dynamic", "factor": 2.0},
    "longrope": {
        "rope_type": "longrope",
        "short_factor": [1.0 + n / 8 for n in range(8)],
        "long_factor": [2.0 + n for n in range(8)],
        "original_max_position_embeddings": 32,
    },
}


@pytest.mark.parametrize("seq", [9, 40, 100])
@pytest.mark.parametrize("name", SCALINGS)
def test_angles_are_those_of_transformers(name: str, seq: int):
    import torch
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    said = {"rope_theta": 500.0} | SCALINGS[name]
    sizes = {"hidden_size": 4 * HEAD_DIM, "num_attention_heads": 4, "max_position_embeddings": POSITIONS}
    theirs = LlamaRotaryEmbedding(LlamaConfig(**sizes, rope_parameters=dict(said)))
    cos, sin = theirs(torch.zeros(1, seq, HEAD_DIM), torch.arange(seq)[None])
    rope = Rope.of(Fields({"rope_parameters": dict(said)}), theta=10_000.0, positions=POSITIONS)
    angles = RotaryAngles.at(jnp.arange(seq), rope, HEAD_DIM)
    np.testing.assert_allclose(angles.cos, cos[0, :, : HEAD_DIM // 2].numpy(), atol=2e-5)
    np.testing.assert_allclose(angles.sin, sin[0, :, : HEAD_DIM // 2].numpy(), atol=2e-5)


def test_where_older_files_say_how_long_texts_were():
    said = {"rope_type": "longrope", "short_factor": [1.0], "long_factor": [2.0]}
    fields = Fields({"original_max_position_embeddings": 32, "rope_scaling": said, "rope_theta": 100.0})
    rope = Rope.of(fields, theta=10_000.0, positions=POSITIONS)
    assert (rope.theta, rope.original_max_position_embeddings, rope.factor) == (100.0, 32, 2.0)
    fields.done()


def test_factors_for_heads_of_another_size_are_refused():
    said = {"rope_type": "longrope", "short_factor": [1.0], "long_factor": [2.0]}
    rope = Rope.of(Fields({"rope_scaling": said}), theta=10_000.0, positions=POSITIONS)
    with pytest.raises(bridge.CheckpointError, match="has 1 longrope factors, expected 8"):
        rope.frequencies(HEAD_DIM)
