"""`eqx-bridge plan`: the dry run, from the user's own code and rules."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import bridge
from bridge.cli.main import main
from tests.cli.program import MODEL, RULES, run, weights, write


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a checkpoint, a model's module and its rules; the current one."""
    write(tmp_path / "model.safetensors", weights())
    (tmp_path / "my_model.py").write_text(MODEL)
    (tmp_path / "rules.toml").write_text(RULES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_model", raising=False)
    return tmp_path


ARGUMENTS = ["plan", "model.safetensors", "--like", "my_model:make"]


def test_a_plan_that_holds_is_0(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = list(sys.path)
    assert main([*ARGUMENTS, "--rules", "rules.toml"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("'model.safetensors' (4 keys) -> Net (2 leaves), 96 B to read\n")
    assert "blocks.{0..1}.fc.weight float32[3, 3] -> layers.weight float32[2, 3, 3]" in out
    assert "made by the user's module" in err  # what the user's code prints is no part of the answer
    assert sys.path == path


def test_json_is_the_plan(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*ARGUMENTS, "--rules", "rules.toml", "--json"]) == 0
    out = capsys.readouterr().out
    plan = bridge.Plan.from_json(out)
    assert plan.ok
    assert plan == bridge.plan("model.safetensors", __import__("my_model").make(), bridge.load_rules("rules.toml"))


def test_keys_and_leaves_that_do_not_meet_are_1(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tensors = weights()
    del tensors["blocks.1.fc.bias"]
    write(folder / "model.safetensors", tensors | {"extra": np.ones(1, "f4")})
    assert main([*ARGUMENTS, "--rules", "rules.toml"]) == 1
    out = capsys.readouterr().out
    assert "2 problems between 'model.safetensors' (4 keys) and Net (2 leaves)" in out
    assert "layers.bias[1]" in out
    assert main([*ARGUMENTS, "--rules", "rules.toml", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert (document["ok"], document["missing"], document["unexpected"]) == (False, ["layers.bias[1]"], ["extra"])


def test_what_may_be_absent_or_left_over_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tensors = {key: value for key, value in weights().items() if key.endswith("weight")}
    write(folder / "model.safetensors", tensors | {"a.x": np.ones(1, "f4"), "b.y": np.ones(1, "f4")})
    given = [*ARGUMENTS, "--rules", "rules.toml"]
    allowed = ["--allow-unexpected", "a.**", "--allow-unexpected", "b.**", "--allow-missing", "**.bias"]
    assert main(given) == 1
    assert main([*given, *allowed[:2], *allowed[4:]]) == 1
    assert main([*given, *allowed[:4]]) == 1
    capsys.readouterr()
    assert main([*given, *allowed]) == 0
    out = capsys.readouterr().out
    assert "ignored: a.x" in out
    assert "ignored: b.y" in out
    assert "kept from the template: layers.bias" in out


def test_an_attribute_of_an_attribute_is_found(folder: Path) -> None:
    assert main(["plan", "model.safetensors", "--like", "my_model:Holder.inner.make", "--rules", "rules.toml"]) == 0


@pytest.mark.parametrize(
    ("spelling", "said"),
    [
        ("my_model", "is not 'pkg.module:make'"),
        ("my_model:", "is not 'pkg.module:make'"),
        (":make", "is not 'pkg.module:make'"),
        ("my model:make", "is not 'pkg.module:make'"),
        ("\x1b[2J:make", r"'\x1b[2J:make' is not 'pkg.module:make'"),
        ("absent_module:make", "there is no module 'absent_module' here"),
        ("my_model.sub:make", "'my_model.sub'"),
        ("my_model:absent", "'my_model' has no 'absent'"),
        ("my_model:NUMBER", "'NUMBER' is not a function, but int"),
        ("my_model:broken", "calling it raised KeyError: 'absent'"),
        ("my_model:quits", "calling it raised SystemExit: 0"),
        ("bad_syntax:make", "importing 'bad_syntax' raised SyntaxError"),
        ("needs_absent:make", "importing 'needs_absent' raised ModuleNotFoundError: No module named 'absent_module'"),
    ],
)
def test_a_like_that_cannot_be_is_2(folder: Path, spelling: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "bad_syntax.py").write_text("def make(:\n")
    (folder / "needs_absent.py").write_text("import absent_module\n")
    assert main(["plan", "model.safetensors", "--like", spelling]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "error: --like " in err
    assert said in err
    assert "Traceback" not in err
    assert "\x1b" not in err


def test_where_the_users_code_raised_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = MODEL.splitlines().index('    return {}["absent"]') + 1
    assert main(["plan", "model.safetensors", "--like", "my_model:broken"]) == 2
    err = capsys.readouterr().err
    assert f'in broken, my_model.py line {line}: return {{}}["absent"]' in err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "'rules.toml' cannot be read"),
        ("rules = [", "'rules.toml' is not TOML"),
        ('rules = ["a b"]', "rules.toml"),
    ],
)
def test_rules_that_are_none_are_2(
    folder: Path, text: str | None, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = folder / "rules.toml"
    file.unlink() if text is None else file.write_text(text)
    assert main([*ARGUMENTS, "--rules", "rules.toml"]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert "Traceback" not in err


def test_the_program_finds_a_module_in_the_current_folder(folder: Path) -> None:
    ended = run(*ARGUMENTS, "--rules", "rules.toml", cwd=folder)
    assert (ended.returncode, ended.stderr) == (0, "made by the user's module\n")
    assert "layers.weight float32[2, 3, 3]" in ended.stdout
