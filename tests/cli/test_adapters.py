"""`--adapter`, in the commands that bring a source and a model together."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import bridge
from bridge.cli.main import main
from tests.adapters.write import adapter, peft
from tests.cli.program import MODEL, RULES, weights, write


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a checkpoint, a model's module, its rules and two adapters; the current one."""
    write(tmp_path / "model.safetensors", weights())
    (tmp_path / "my_model.py").write_text(MODEL)
    (tmp_path / "rules.toml").write_text(RULES)
    factors = {f"blocks.{n}.fc": (np.ones((1, 3), "f4"), np.full((3, 1), 2, "f4")) for n in range(2)}
    for name in ("lora", "a=1"):
        adapter(tmp_path / name, peft(factors), r=1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_model", raising=False)
    return tmp_path


MAPPING = ["--like", "my_model:make", "--rules", "rules.toml"]


def test_a_plan_shows_what_is_merged(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "model.safetensors", *MAPPING, "--adapter", "lora=0.5", "--adapter", "a=1"]) == 0
    out = capsys.readouterr().out
    assert "\n  blocks.{0..1}.fc.weight += 2.0 · B @ A (r=1), from 'lora/'" in out
    assert "\n  blocks.{0..1}.fc.weight += 4.0 · B @ A (r=1), from 'a=1/'" in out
    assert main(["plan", "model.safetensors", *MAPPING, "--adapter", "lora", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["adapters"]["asked"] == [["lora/", 1.0]]


def test_convert_merges(folder: Path) -> None:
    assert main(["convert", "model.safetensors", "converted", *MAPPING, "--adapter", "lora=0.125"]) == 0
    model = sys.modules["my_model"].make()
    one = bridge.load("converted", model)
    two = bridge.load("model.safetensors", model, bridge.load_rules("rules.toml"), adapters=("lora", 0.125))
    plain = bridge.load("model.safetensors", model, bridge.load_rules("rules.toml"))
    assert np.array_equal(one.layers.weight, two.layers.weight)
    assert np.array_equal(one.layers.weight, plain.layers.weight + 1)


def test_what_is_no_adapter_is_1(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "model.safetensors", *MAPPING, "--adapter", "nowhere/at/all=0.5"]) == 1
    assert "'nowhere/at/all' does not exist" in capsys.readouterr().err
