"""`eqx-bridge suggest`: rules on stdout, or a model to start from."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import bridge
from bridge.cli.main import main
from tests.cli.program import MODEL, weights, write

ARGUMENTS = ["suggest", "model.safetensors", "--like", "my_model:make"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a checkpoint and a model's module; the current one."""
    write(tmp_path / "model.safetensors", weights())
    (tmp_path / "my_model.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_model", raising=False)
    return tmp_path


def test_what_is_printed_are_rules(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(ARGUMENTS) == 0
    out = capsys.readouterr().out
    (folder / "rules.toml").write_text(out.replace('# "', '"'))
    assert main(["plan", *ARGUMENTS[1:], "--rules", "rules.toml"]) == 0


def test_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*ARGUMENTS, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert set(document) == {"rules", "certain", "doubtful", "unmatched", "left"}
    assert bridge.plan("model.safetensors", __import__("my_model").make(), document["rules"]).ok


def test_rules_that_are_known(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "start.toml").write_text('rules = ["blocks.{l}.fc.weight [o i] -> layers.weight [l i o]"]')
    assert main([*ARGUMENTS, "--rules", "start.toml"]) == 0
    first = capsys.readouterr().out.splitlines()[1]
    assert first == '  "blocks.{l}.fc.weight [o i] -> layers.weight [l i o]",'


def test_a_skeleton_is_a_model(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["suggest", "model.safetensors", "--skeleton"]) == 0
    (folder / "skeleton.py").write_text(capsys.readouterr().out)
    monkeypatch.delitem(sys.modules, "skeleton", raising=False)
    monkeypatch.syspath_prepend(folder)
    names = __import__("skeleton")
    assert bridge.plan("model.safetensors", names.make(), names.RULES).ok


@pytest.mark.parametrize("arguments", [["suggest", "model.safetensors"], [*ARGUMENTS, "--skeleton"]])
def test_one_of_both_is_asked_for(folder: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert "give --like pkg.module:make for rules, or --skeleton" in capsys.readouterr().err
