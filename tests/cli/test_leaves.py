"""`eqx-bridge leaves`: a model's own leaves, and where a model may come from."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from bridge.cli.main import main
from tests.cli.program import MODEL

MODEL_OF_MANY = """
import equinox as eqx
import jax

class Block(eqx.Module):
    norm: eqx.nn.LayerNorm
    up: eqx.nn.Linear

    def __init__(self, key):
        self.norm, self.up = eqx.nn.LayerNorm(4), eqx.nn.Linear(4, 4, key=key)

class Net(eqx.Module):
    stem: eqx.nn.Sequential
    blocks: list
    bn: eqx.nn.BatchNorm
    free: jax.Array

    def __init__(self, key):
        self.stem = eqx.nn.Sequential([eqx.nn.Conv2d(3, 4, 2, key=key)])
        self.blocks = [Block(key) for _ in range(11)]
        self.bn = eqx.nn.BatchNorm(4, "batch", mode="batch")
        self.free = jax.numpy.zeros((), "bfloat16")

def make():
    return eqx.nn.make_with_state(Net)(jax.random.key(0))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "many_model.py").write_text(MODEL_OF_MANY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "many_model", raising=False)
    return tmp_path


def test_leaves_are_listed_in_the_order_of_the_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["leaves", "--like", "many_model:make"]) == 0
    title, counts, blank, heading, *rows = capsys.readouterr().out.splitlines()
    assert (title, counts) == ("Net", "52 leaves, 378 parameters, 1.5 kB")
    assert (blank, heading.split()) == ("", ["leaf", "dtype", "shape", "layer", "count", "layout"])
    shown = [[cell.strip() for cell in row.split("   ") if cell.strip()] for row in rows]
    assert shown[0] == ["stem.0.weight", "F32", "[4, 3, 2, 2]", "Conv2d"]
    assert shown[1] == ["stem.0.bias", "F32", "[4, 1, 1]", "Conv2d", "bias [o] -> bias [o 1 1]"]
    assert shown[2] == ["blocks.{0..10}.norm.weight", "F32", "[4]", "LayerNorm", "11"]
    assert shown[4] == ["blocks.{0..10}.up.weight", "F32", "[4, 4]", "Linear", "11"]
    assert ["bn.running_mean", "F32", "[4]", "BatchNorm"] in shown
    assert ["free", "BF16", "[]", "Net"] in shown


def test_json_has_them_one_by_one(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["leaves", "--like", "many_model:make", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["parameters"], len(document["leaves"])) == (378, 52)
    assert document["leaves"]["stem.0.bias"] == {
        "dtype": "F32",
        "shape": [4, 1, 1],
        "layer": "Conv2d",
        "layout": ["bias [o] -> bias [o 1 1]"],
    }
    assert document["leaves"]["blocks.10.up.bias"] == {"dtype": "F32", "shape": [4], "layer": "Linear", "layout": []}


def test_a_model_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The file is run under its own name, imports what lies beside it, and is no module of the current folder."""
    inner = tmp_path / "a folder"
    inner.mkdir()
    (inner / "beside_model.py").write_text(MODEL)
    (inner / "file-model.py").write_text("from beside_model import make, broken\n")
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    try:
        for spelling in ("a folder/file-model.py:make", f"{inner}/file-model.py:make"):
            assert main(["leaves", "--like", spelling]) == 0
            assert "layers.weight" in capsys.readouterr().out
        assert main(["leaves", "--like", "a folder/file-model.py:broken"]) == 2
        assert "in broken, a folder/beside_model.py line" in capsys.readouterr().err
        assert main(["leaves", "--like", "a folder/file-model.py:absent"]) == 2
        assert "has no 'absent'" in capsys.readouterr().err
    finally:
        sys.modules.pop("beside_model", None)
        sys.modules.pop("file-model", None)
    assert sys.path == path
    assert main(["leaves", "--like", "a folder/nowhere.py:make"]) == 2
    assert "there is no file 'a folder/nowhere.py'" in capsys.readouterr().err


def test_a_file_does_not_take_the_place_of_a_module(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "json.py").write_text(MODEL)
    assert main(["leaves", "--like", f"{tmp_path}/json.py:make"]) == 0
    assert sys.modules["json"] is json
