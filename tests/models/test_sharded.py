"""A model spread over devices computes what it computes on one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import bridge
from bridge.models import llama
from tests.models.four_devices import KINDS
from tests.models.random_model import random_model

ROOT = Path(__file__).resolve().parents[2]
FIELDS = {
    "model_type": "llama",
    "vocab_size": 48,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
PROGRAM = """
import bridge, equinox as eqx, jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, PartitionSpec as P

mesh = jax.make_mesh((4,), ("x",), axis_types=(AxisType.Auto,))
columns = ("query", "key", "value", "gate", "up")
patterns = {f"layers.**.{name}.weight": P(None, "x") for name in columns}
patterns |= {f"layers.**.{name}.weight": P(None, None, "x") for name in ("out", "down")}
one = bridge.models.from_pretrained("repo")
four = bridge.models.from_pretrained("repo", sharding=(mesh, patterns))
assert {shard.data.shape for shard in four.layers.attention.out.weight.addressable_shards} == {(3, 16, 4)}

tokens = jnp.arange(9)
logits = eqx.filter_jit(lambda model, tokens: model(tokens))
assert np.abs(np.asarray(logits(four, tokens)) - np.asarray(logits(one, tokens))).max() < 1e-5
generate = bridge.models.generate
assert (np.asarray(generate(four, tokens, 8)) == np.asarray(generate(one, tokens, 8))).all()
print("ok")
"""


def four_devices(command: list[str], folder: Path) -> str:
    """What a Python that has four devices prints."""
    env = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error", *command]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_heads_and_widths_over_four_devices(tmp_path: Path):
    config = llama.Config.from_dict(FIELDS)
    bridge.save(random_model(llama.Llama, config), tmp_path / "repo", llama.rules(config))
    (tmp_path / "repo" / "config.json").write_text(json.dumps(FIELDS))
    assert four_devices(["-c", PROGRAM], tmp_path).strip() == "ok"


def test_every_encoder_over_four_devices(tmp_path: Path):
    assert four_devices(["-m", "tests.models.four_devices", str(tmp_path)], tmp_path).split() == list(KINDS)
