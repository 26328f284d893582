"""`eqx-bridge convert`, `revert` and `diff`: there and back, bit for bit."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import bridge
from bridge.cli.main import main
from tests.cli.program import MODEL, RULES, weights, write
from tests.errors.promised import text_of

CONVERT = ["convert", "original", "converted", "--like", "my_model:make", "--rules", "rules.toml"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write(tmp_path / "original" / "model.safetensors", weights(), {"format": "pt", "made": "here"})
    (tmp_path / "my_model.py").write_text(MODEL)
    (tmp_path / "rules.toml").write_text(RULES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_model", raising=False)
    return tmp_path


def test_there_and_back(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(CONVERT) == 0
    assert capsys.readouterr().out.startswith("converted: ")
    with bridge.open("converted") as ckpt:
        stacked = np.stack([weights()[f"blocks.{layer}.fc.weight"] for layer in range(2)])
        assert ckpt["layers.weight"].tobytes() == stacked.tobytes()
    assert main(["plan", "converted", "--like", "my_model:make"]) == 0
    assert main(["revert", "converted", "back"]) == 0
    assert (folder / "back/model.safetensors").read_bytes() == (folder / "original/model.safetensors").read_bytes()
    capsys.readouterr()
    assert main(["diff", "original", "back"]) == 0
    assert capsys.readouterr().out == "'original/' and 'back/' are equal: 4 keys, bit for bit\n"


def test_json_says_what_was_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*CONVERT, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["target"], document["left_out"]) == ("converted", [])
    assert document["nbytes"] == sum((folder / "converted" / name).stat().st_size for name in document["files"])
    assert main(["revert", "converted", "back", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["files"] == ["model.safetensors"]


@pytest.mark.parametrize("spelling", ["bf16", "BF16", "bfloat16"])
def test_dtype(folder: Path, spelling: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*CONVERT, "--dtype", spelling]) == 0
    with bridge.open("converted") as ckpt:
        assert {spec.dtype.name for spec in ckpt.specs.values()} == {"bfloat16"}
    assert "blocks.{0..1}.fc.weight: narrowed from float32 to bfloat16" in capsys.readouterr().out
    assert main(["revert", "converted", "back"]) == 0
    assert bridge.diff("original", "back").equal


def test_a_dtype_that_is_none_is_2(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*CONVERT, "--dtype", "bf61"]) == 2
    assert capsys.readouterr().err.startswith("error: " + text_of("--dtype: none").replace("f99", "bf61"))
    assert not (folder / "converted").exists()


def test_a_checkpoint_is_replaced_only_on_request(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for argv in (CONVERT, ["revert", "converted", "back"]):
        assert main(argv) == 0
        capsys.readouterr()
        assert main(argv) == 1
        assert f"error: '{argv[2]}' holds a checkpoint already" in capsys.readouterr().err
        assert main([*argv, "--overwrite"]) == 0


def test_what_does_not_meet_is_1_and_writes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder / "original/model.safetensors", weights() | {"extra": np.ones(1, "f4")})
    assert main(CONVERT) == 1
    assert "extra" in capsys.readouterr().err
    assert not (folder / "converted").exists()
    assert main(["revert", "original", "back"]) == 1
    assert "'original/' was not written by convert" in capsys.readouterr().err


def test_diff_says_what_differs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tensors = weights()
    tensors["blocks.0.fc.bias"] = tensors["blocks.0.fc.bias"] + np.array([0, 0.5, 0], "f4")
    write(folder / "other/model.safetensors", tensors)
    assert main(["diff", "original", "other"]) == 1
    assert "blocks.0.fc.bias: 1 element differ" in capsys.readouterr().out
    assert main(["diff", "original", "other", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert (document["equal"], document["compared"]) == (False, 4)
    assert document["differing"] == [{"key": "blocks.0.fc.bias", "count": 1, "largest": 0.5}]


def test_diff_of_what_is_not_there_is_1(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", "original", "absent.safetensors"]) == 1
    assert capsys.readouterr().err.startswith("error: ")
