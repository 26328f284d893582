"""The commands on what torch.save writes: roots, modules, tensors that cannot be read, and what is no tensor."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bridge.cli.main import main
from tests.torchfile import craft
from tests.torchfile.craft import GOOD, archive, dict_of, number, tensor

SPARSE = craft.call(craft.name("torch._utils", "_rebuild_sparse_tensor"), craft.NONE)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "x.pth"
    path.write_bytes(archive(dict_of({"s": SPARSE, **GOOD, "v": tensor(None, (2, 2), (1, 2)), "step": number(7)})))
    return path


def test_inspect(file: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["inspect", str(file)]) == 0
    out = capsys.readouterr().out
    rows = [line.split() for line in out.splitlines()]
    assert out.splitlines()[1] == "3 tensors, 8 parameters, 32 B, in 1 file"
    assert ["w", "F32", "[4]", "16", "B"] in rows
    assert ["v", "F32", "[2,", "2]", "16", "B"] in rows
    assert ["step", "7"] in rows
    assert ["step", "a", "number"] in rows
    assert f"key 's' in '{file}' cannot be read: it is sparse." in out


def test_inspect_as_json(file: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["inspect", str(file), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert list(document["tensors"]) == ["w", "v"]
    assert (document["parameters"], document["nbytes"]) == (8, 32)
    assert list(document["refused"]) == ["s"]
    assert document["skipped"] == {"step": "a number"}
    assert document["metadata"] == {"step": "7"}


def test_a_plain_checkpoint_says_nothing_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "x.pth").write_bytes(archive(dict_of(GOOD)))
    assert main(["inspect", str(tmp_path / "x.pth"), "--json"]) == 0
    assert not {"refused", "skipped"} & set(json.loads(capsys.readouterr().out))


def test_a_root(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "x.ckpt"
    path.write_bytes(archive(dict_of({"model": dict_of(GOOD), "ema": dict_of({"a.w": tensor(), "w": tensor()})})))
    assert main(["inspect", str(path)]) == 1
    assert "--root ema (2 tensors)" in capsys.readouterr().err
    for root, keys in (("ema", ["a.w", "w"]), ("", ["model.w", "ema.a.w", "ema.w"])):
        assert main(["inspect", str(path), "--root", root, "--json"]) == 0
        assert list(json.loads(capsys.readouterr().out)["tensors"]) == keys
    assert main(["diff", str(path), str(path), "--root", "ema"]) == 0


def test_the_help_says_what_they_are_for(capsys: pytest.CaptureFixture[str]):
    for command in ("inspect", "plan", "convert", "diff"):
        assert main([command, "--help"]) == 0
        text = capsys.readouterr().out
        assert "--root PATH" in text
        assert "--modules" in text
