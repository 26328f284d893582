"""Mixtral: experts and layers as two axes, one key for each expert or one for all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

import bridge
import bridge.models
from bridge.models.experts import Experts
from tests.models.contract import Case, DecoderContract
from tests.models.random_model import random_model

pytestmark = pytest.mark.torch

ROOT = Path(__file__).resolve().parents[2]
ODD = {
    "vocab_size": 67,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "num_local_experts": 6,
    "max_position_embeddings": 64,
}


class TestMixtral(DecoderContract):
    model_type = "mixtral"
    kind = "MixtralForCausalLM"
    variants = {
        "two of six": ODD,
        "all of three, square, tied, a window": ODD
        | {
            "intermediate_size": 24,
            "num_local_experts": 3,
            "num_experts_per_tok": 3,
            "num_hidden_layers": 1,
            "tie_word_embeddings": True,
            "sliding_window": 5,
        },
    }
    refused = {
        "hidden_act": "swish",
        "num_experts_per_tok": 7,
        "num_local_experts": 0,
        "rope_parameters.rope_type": "spiral",
    }

    def test_layers_and_experts_are_axes(self, first: Case):
        experts = first.ours.layers.mlp.experts
        assert (experts.gate.weight.shape, experts.down.weight.shape) == ((3, 6, 40, 24), (3, 6, 24, 40))
        tensors = load_file(first.folder / "model.safetensors")
        for l in range(3):
            for e in range(6):
                for ours, name in ((experts.gate, "w1"), (experts.down, "w2"), (experts.up, "w3")):
                    stored = tensors[f"model.layers.{l}.block_sparse_moe.experts.{e}.{name}.weight"]
                    np.testing.assert_array_equal(ours.weight[l, e], stored)

    def test_the_layout_that_transformers_has_in_memory_is_the_same_model(self, first: Case, tmp_path: Path):
        first.theirs.save_pretrained(tmp_path, save_original_format=False)
        assert "model.layers.0.mlp.experts.gate_up_proj" in load_file(tmp_path / "model.safetensors")
        assert eqx.tree_equal(bridge.models.from_pretrained(tmp_path), first.ours)

    def test_experts_over_devices(self, first: Case):
        """Each device holds its own experts; logits are what one device computes."""
        env = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=3", "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", OVER_DEVICES, str(first.folder)]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)
        assert done.stdout.strip() == "ok", done.stderr


OVER_DEVICES = """
import sys
import bridge.models, equinox as eqx, jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, PartitionSpec as P

mesh = jax.make_mesh((3,), ("x",), axis_types=(AxisType.Auto,))
one = bridge.models.from_pretrained(sys.argv[1])
three = bridge.models.from_pretrained(sys.argv[1], sharding=(mesh, {"**.experts.**": P(None, "x")}))
assert {x.data.shape for x in three.layers.mlp.experts.gate.weight.addressable_shards} == {(3, 2, 40, 24)}
assert eqx.tree_equal(jax.device_get(three), jax.device_get(one))

tokens = jnp.arange(9)
logits = eqx.filter_jit(lambda model, tokens: model(tokens))
assert np.abs(np.asarray(logits(three, tokens)) - np.asarray(logits(one, tokens))).max() < 1e-5
compiled = logits.lower(three, tokens).compile().compiled.as_text()
assert "all-reduce" in compiled and "all-gather" not in compiled  # results travel, experts do not
generate = bridge.models.generate
assert (np.asarray(generate(three, tokens, 8)) == np.asarray(generate(one, tokens, 8))).all()
print("ok")
"""


def experts(count: int, **options: Any) -> Experts:
    """Random ones, of width 4."""
    return random_model(lambda count, *, key: Experts(4, 6, "silu", count=count, **options, key=key), count)


def test_experts_that_are_not_chosen_have_no_say():
    """Not even where they compute nonsense."""
    whole = experts(3, chosen=1, normalised=True)
    whole = eqx.tree_at(lambda m: m.router.weight, whole, jnp.eye(3, 4))
    broken = eqx.tree_at(lambda m: m.experts.down.weight, whole, replace_fn=lambda w: w.at[1:].set(jnp.nan))
    x = jnp.array([3.0, 2, 1, 0])
    np.testing.assert_allclose(broken(x), jax.tree.map(lambda w: w[0], whole.experts)(x), rtol=1e-6)
    assert jnp.isnan(broken(jnp.array([2.0, 3, 1, 0]))).all()


@pytest.mark.parametrize("normalised", [True, False])
def test_shares_are_the_largest(normalised: bool):
    shares = experts(5, chosen=2, normalised=normalised).shares(jnp.array([1.0, -2, 3, 0]))
    assert int((shares > 0).sum()) == 2
    assert (float(shares.sum()) == pytest.approx(1)) is normalised
