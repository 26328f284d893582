"""The way of a port, as its user goes it: processes of their own, PyTorch in the one that records and nowhere else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.torch
ROOT = Path(__file__).resolve().parents[2]

RECORD = """
import sys
import torch
from torch import nn
from record import record

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(8)
        self.w1, self.w2, self.w3 = nn.Linear(8, 16), nn.Linear(16, 8), nn.Linear(8, 16)
        self.drop = nn.Dropout(0.1)

    def forward(self, x):
        y = self.norm(x)
        return x + self.drop(self.w2(torch.nn.functional.silu(self.w1(y)) * self.w3(y)))

class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.blocks = nn.Embedding(32, 8), nn.ModuleList(Block() for _ in range(2))

    def forward(self, input_ids, attention_mask):
        x = self.embed(input_ids)
        for block in self.blocks:
            x = block(x)
        weight = attention_mask[..., None].float()
        return (x * weight).sum(1) / weight.sum(1)

torch.manual_seed(0)
model = Encoder()
torch.save({"state_dict": model.state_dict()}, "model.pt")
mask = torch.ones(2, 6, dtype=torch.long)
mask[1, 4:] = 0
skipped = record(model.eval(), {"input_ids": torch.randint(0, 32, (2, 6)), "attention_mask": mask}, "run.safetensors")
assert skipped == [] and not {"jax", "safetensors", "bridge"} & {*sys.modules}
"""

PORT = """
import equinox as eqx
import jax
import jax.numpy as jnp

class Block(eqx.Module):
    norm: eqx.nn.LayerNorm
    gate: eqx.nn.Linear
    up: eqx.nn.Linear
    down: eqx.nn.Linear
    drop: eqx.nn.Dropout

    def __init__(self, key):
        self.norm, self.drop = eqx.nn.LayerNorm(8), eqx.nn.Dropout(0.1)
        self.gate, self.up = (eqx.nn.Linear(8, 16, key=key) for _ in range(2))
        self.down = eqx.nn.Linear(16, 8, key=key)

    def __call__(self, x, key=None):
        y = self.norm(x)
        return x + self.drop(self.down(jax.nn.silu(self.gate(y)) * self.up(y)), key=key)

class Encoder(eqx.Module):
    embed: eqx.nn.Embedding
    blocks: Block

    def __init__(self):
        key = jax.random.key(0)
        self.embed, self.blocks = eqx.nn.Embedding(32, 8, key=key), eqx.filter_vmap(Block)(jax.random.split(key, 2))

    def __call__(self, tokens, mask):
        arrays, static = eqx.partition(self.blocks, eqx.is_array)
        step = lambda x, one: (jax.vmap(eqx.combine(one, static))(x), None)
        x = jax.lax.scan(step, jax.vmap(self.embed)(tokens), arrays)[0]
        return jnp.where(mask[:, None], x, 0).sum(0) / mask.sum()

class Wrapper(eqx.Module):
    inner: Encoder

    def embed(self, batch, keep):
        return jax.vmap(self.inner)(batch, keep == 1)

def make():
    return Encoder()

def wrapped():
    return Wrapper(Encoder())

def run(model, input_ids, attention_mask):
    return model.embed(input_ids, attention_mask)
"""
RULES = ["blocks.{l}.{w1|w2|w3}.** -> blocks.{up|down|gate}.**"]  # w1 is the gate


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a user has, with a run that was recorded by the printed file."""
    made = tmp_path_factory.mktemp("journey")
    (made / "theirs.py").write_text(RECORD)
    (made / "port.py").write_text(PORT)
    (made / "without" / "torch").mkdir(parents=True)
    (made / "without" / "torch" / "__init__.py").write_text("raise ImportError('there is no PyTorch here')")
    (made / "record.py").write_text(command(made, "recorder", status=0))
    done = subprocess.run([sys.executable, "theirs.py"], cwd=made, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return made


def command(folder: Path, *words: str, status: int) -> str:
    """`eqx-bridge …` in the folder, in an environment without PyTorch: what it prints."""
    path = os.pathsep.join([str(folder / "without"), str(ROOT)])
    env = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    env |= {"PYTHONPATH": path, "JAX_PLATFORMS": "cpu"}
    line = [sys.executable, "-m", "bridge", *words]
    done = subprocess.run(line, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


def rules_of(folder: Path, rules: list[str]) -> None:
    (folder / "rules.toml").write_text("rules = [\n" + "".join(f"    '{rule}',\n" for rule in rules) + "]\n")


def test_a_wrong_rule_is_named_and_the_one_that_is_printed_repairs_the_port(folder: Path) -> None:
    rules_of(folder, RULES)
    words = (
        "check",
        "run.safetensors",
        "model.pt",
        "--root",
        "state_dict",
        "--like",
        "port.py:make",
        "--rules",
        "rules.toml",
    )
    wrong = command(folder, *words, status=1)
    assert "departs       blocks.gate[0]   PyTorch's 'blocks.0.w3'" in wrong
    printed = [line.strip() for line in wrong.splitlines() if " -> " in line]
    assert printed
    rules_of(folder, [*printed, "blocks.{l}.w2.** -> blocks.down.**"])
    right = command(folder, *words, status=0)
    assert right.splitlines()[0] == "Encoder against 'run.safetensors' (Encoder): it agrees"


def test_a_wrapper_says_how_it_is_run(folder: Path) -> None:
    rules_of(folder, ["embed.** -> inner.embed.**", "blocks.{l}.norm.** -> inner.blocks.norm.**",
                      "blocks.{l}.{w1|w2|w3}.** -> inner.blocks.{up|down|gate}.**"])  # fmt: skip
    words = (
        "check",
        "run.safetensors",
        "model.pt",
        "--root",
        "state_dict",
        "--like",
        "port.py:wrapped",
        "--rules",
        "rules.toml",
    )
    alone = command(folder, *words, status=0)  # each layer agrees with what it was taken for
    head = (
        "Wrapper against 'run.safetensors' (Encoder): each layer agrees alone, but the run as a whole was not compared"
    )
    assert alone.startswith(head)
    assert "give --trace fn, a function of the model and of what PyTorch's took" in alone
    whole = command(folder, *words, "--trace", "port.py:run", status=1)
    assert "departs       inner.blocks.gate[0]   PyTorch's 'blocks.0.w3'" in whole
