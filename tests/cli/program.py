"""Files, models and a way to run the program, for the tests of the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from tests.craft import checkpoint

ROOT = Path(__file__).resolve().parent.parent.parent

# Hostile on purpose: clears a screen, looks like rich's markup, turns the writing around.
HOSTILE = "\x1b[2J[bold red]key[/]\u202e.weight"

MODEL = """
import equinox as eqx
import jax

print("made by the user's module")

class Net(eqx.Module):
    layers: eqx.nn.Linear

def make():
    keys = jax.random.split(jax.random.key(0), 2)
    return Net(eqx.filter_vmap(lambda key: eqx.nn.Linear(3, 3, key=key))(keys))

def broken():
    return {}["absent"]

def quits():
    raise SystemExit(0)

class Holder:
    class inner:
        make = staticmethod(make)

NUMBER = 3
"""

RULES = 'rules = ["blocks.{l}.fc.** -> layers.**"]\n'


def weights(layers: int = 2) -> dict[str, np.ndarray]:
    tensors: dict[str, np.ndarray] = {}
    for layer in range(layers):
        tensors[f"blocks.{layer}.fc.weight"] = np.arange(9, dtype="f4").reshape(3, 3) + layer
        tensors[f"blocks.{layer}.fc.bias"] = np.arange(3, dtype="f4") - layer
    return tensors


def write(path: Path, tensors: dict[str, np.ndarray], metadata: dict[str, str] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(checkpoint(tensors, metadata))
    return path


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "bridge", *map(str, arguments)]


def environment(**extra: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **extra}


def run(*arguments: object, cwd: Path | None = None, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m bridge` and keep what it says."""
    return subprocess.run(
        command(*arguments), cwd=cwd, env=environment(**extra), capture_output=True, text=True, timeout=120, check=False
    )
