"""What the library says in Python's words is said in options, and a word that is misspelt in the one that is meant."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import bridge
from bridge.cli.main import main
from bridge.cli.options import spoken
from tests.cli.program import MODEL, weights, write
from tests.errors.promised import read


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name another place, or give overwrite=True", "name another place, or give --overwrite"),
        ('if not needed: allow_unexpected=["**.inv_freq"]', "if not needed: --allow-unexpected '**.inv_freq'"),
        ('allow_missing=["a.b", "c.*"].', "--allow-missing a.b --allow-missing 'c.*'."),
        ("Take the stored tensors with quantized='keep'.", "Take the stored tensors with --quantized keep."),
        (
            "Say quantized={'quant_method': 'gptq', 'sym': False, …}.",
            """Say --quantized '{"quant_method": "gptq", "sym": false, …}'.""",
        ),
        ("root='ema' (2 tensors), root='a b'", "--root ema (2 tensors), --root 'a b'"),
        ("load its model, with adapters=['x/']", "load its model, with --adapter x/"),
        ("Choose one with root=, or root='' for all", "Choose one with --root, or --root '' for all"),
        ("log in: `hf auth login`, or `token=`", "log in: `hf auth login`, or --token"),
        ("say which it gets, dtype={'a.b': …}", "say which it gets, --dtype 'a.b=…'"),
        ("a narrower dtype (dtype='bf16'), or", "a narrower dtype (--dtype bf16), or"),
        ("Open it with modules=True, which", "Open it with --modules, which"),
        ("the same revision='<commit>'", "the same --revision '<commit>'"),
        ("'overwrite=True.safetensors' is empty", "'overwrite=True.safetensors' is empty"),
        ("key 'a.root=b' is not in 'x'", "key 'a.root=b' is not in 'x'"),
        ("nothing of the kind, x.root=3, my_dtype=3", "nothing of the kind, x.root=3, my_dtype=3"),
        ("with adapters=['x/'].", "with --adapter x/."),
        ("say adapters=['a', ('b c', -0.5)] again", "say --adapter a --adapter 'b c=-0.5' again"),
        ("root='never closed", "--root"),
        (r'allow_unexpected=["\x1b[2J"]', r"--allow-unexpected '\x1b[2J'"),
        ("quantized={'never': [closed", "--quantized '{\"never\": [closed'"),
    ],
)
def test_keywords_become_options(text: str, said: str) -> None:
    assert spoken(text) == said


def test_no_keyword_of_a_command_is_left_in_any_text() -> None:
    """Names are in quotes. What is left are the keywords of `save` and of what has no command."""
    for name, told in read().items():
        for keyword in ("overwrite=", "allow_missing=", "allow_unexpected=", "quantized=", "modules=", "subfolder="):
            outside = "".join(spoken(told.text).split("'")[::2])
            assert keyword not in outside, name


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write(tmp_path / "model.safetensors", weights() | {"extra": np.ones(1, "f4")})
    (tmp_path / "my_model.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_model", raising=False)
    return tmp_path


def test_a_report_speaks_of_options(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "rules.toml").write_text('rules = ["blocks.{l}.fc.** -> layers.**"]\n')
    given = ["model.safetensors", "--like", "my_model:make", "--rules", "rules.toml"]
    assert main(["plan", *given]) == 1
    assert "--allow-unexpected extra" in capsys.readouterr().out
    assert main(["convert", *given[:1], "out", *given[1:]]) == 1
    assert "--allow-unexpected extra" in capsys.readouterr().err
    assert main(["plan", *given, "--allow-unexpected", "extra"]) == 0
    assert main(["convert", *given[:1], "out", *given[1:], "--allow-unexpected", "extra"]) == 0
    capsys.readouterr()
    assert main(["convert", *given[:1], "out", *given[1:], "--allow-unexpected", "extra"]) == 1
    err = capsys.readouterr().err
    assert "--overwrite" in err
    assert "overwrite=True" not in err


@pytest.mark.parametrize(
    ("argv", "meant"),
    [
        (["plan", "a", "--like", "b:c", "--allow-mising", "x"], "--allow-missing"),
        (["plan", "a", "--like", "b:c", "--allow_missing", "x"], "--allow-missing"),
        (["plan", "a", "--lyke", "b:c"], "--like"),
        (["convert", "a", "b", "--like", "b:c", "--overwite"], "--overwrite"),
        (["convert", "a", "b", "--like", "b:c", "--ruels=r.toml"], "--rules"),
        (["inspect", "a", "--revison", "x"], "--revision"),
        (["leaves", "--like", "b:c", "--jsn"], "--json"),
        (["inspekt", "a"], "inspect"),
    ],
)
def test_a_misspelt_option_gets_the_one_that_was_meant(
    argv: list[str], meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 2
    assert capsys.readouterr().err.endswith(f"Did you mean {meant}?\n")


def test_what_is_like_no_option_gets_no_guess(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "a", "--frobnicate"]) == 2
    assert "Did you mean" not in capsys.readouterr().err


@pytest.mark.parametrize("command", ["plan", "convert"])
def test_dtype_takes_patterns(folder: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "rules.toml").write_text('rules = ["blocks.{l}.fc.** -> layers.**", "extra -> _"]\n')
    places = ["model.safetensors"] if command == "plan" else ["model.safetensors", "out"]
    given = [command, *places, "--like", "my_model:make", "--rules", "rules.toml", "--json"]
    assert main([*given, "--dtype", "bf16", "--dtype", "**.bias=f16"]) == 0
    out = capsys.readouterr().out
    if command == "plan":
        leaves = bridge.Plan.from_json(out).leaves
        dtypes = {name: spec.dtype.name for name, spec in leaves.items()}
    else:
        with bridge.open("out") as ckpt:
            dtypes = {key: spec.dtype.name for key, spec in ckpt.specs.items() if key.startswith("layers")}
    assert dtypes == {"layers.weight": "bfloat16", "layers.bias": "float16"}
    assert main([*given, "--dtype", "bf16", "--dtype", "f16"]) == 2
    assert "--dtype is given as 'bf16' and as 'f16'" in capsys.readouterr().err


@pytest.mark.parametrize("missing", [["layers.bias"], ["layers.*"]])
def test_convert_takes_what_may_be_missing_from_the_model(
    folder: Path, missing: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    found = {key: value for key, value in weights().items() if key.endswith("weight")}
    write(folder / "model.safetensors", found)
    (folder / "rules.toml").write_text('rules = ["blocks.{l}.fc.** -> layers.**"]\n')
    given = ["convert", "model.safetensors", "out", "--like", "my_model:make", "--rules", "rules.toml"]
    assert main(given) == 1
    assert "layers.bias" in capsys.readouterr().err
    allowed = [word for pattern in missing for word in ("--allow-missing", pattern)]
    assert main([*given, *allowed]) == 0
    expected = __import__("my_model").make().layers.bias
    with bridge.open("out") as ckpt:
        np.testing.assert_array_equal(ckpt["layers.bias"], np.asarray(expected))
        assert ckpt["layers.weight"].shape == (2, 3, 3)
