"""`eqx-bridge inspect`: files, metadata, folded tensors; JSON as it is documented; headers only."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from bridge.cli.main import main
from tests.cli.program import weights, write
from tests.craft import checkpoint, craft, entry


@pytest.fixture
def file(tmp_path: Path) -> Path:
    tensors = weights(12) | {"head.weight": np.ones((5, 3), "f2"), "steps": np.array(7, "i8")}
    return write(tmp_path / "model.safetensors", tensors, {"format": "pt"})


def lines(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_tensors_that_differ_only_in_an_index_are_one_line(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(file)]) == 0
    out, err = capsys.readouterr()
    rows = lines(out)
    assert rows[0] == [str(file)]
    assert out.splitlines()[1] == "26 tensors, 160 parameters, 614 B, in 1 file"
    assert ["format", "pt"] in rows
    assert ["blocks.{0..11}.fc.weight", "F32", "[3,", "3]", "12", "432", "B"] in rows
    assert ["blocks.{0..11}.fc.bias", "F32", "[3]", "12", "144", "B"] in rows
    assert ["head.weight", "F16", "[5,", "3]", "30", "B"] in rows
    assert ["steps", "I64", "[]", "8", "B"] in rows
    assert err == ""


def test_other_shapes_and_dtypes_do_not_fold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tensors = {"l.0": np.zeros(2, "f4"), "l.1": np.zeros(3, "f4"), "l.2": np.zeros(2, "f4"), "l.3": np.zeros(2, "f2")}
    assert main(["inspect", str(write(tmp_path / "m.safetensors", tensors))]) == 0
    rows = lines(capsys.readouterr().out)
    assert ["l.{0,2}", "F32", "[2]", "2", "16", "B"] in rows
    assert ["l.1", "F32", "[3]", "12", "B"] in rows
    assert ["l.3", "F16", "[2]", "4", "B"] in rows


def test_json_is_what_the_documentation_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    header = {"__metadata__": {"format": "pt"}, "a": entry("BF16", [2, 2], 0, 8), "b": entry("F8_E4M3", [3], 8, 11)}
    file = tmp_path / "model.safetensors"
    file.write_bytes(craft(header, bytes(11)))
    assert main(["inspect", str(tmp_path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document == {
        "files": [{"name": "model.safetensors", "nbytes": file.stat().st_size}],
        "tensors": {
            "a": {"dtype": "BF16", "shape": [2, 2], "nbytes": 8, "file": "model.safetensors"},
            "b": {"dtype": "F8_E4M3", "shape": [3], "nbytes": 3, "file": "model.safetensors"},
        },
        "quantized": {},
        "parameters": 7,
        "nbytes": 11,
        "metadata": {"format": "pt"},
    }


def test_an_empty_checkpoint_has_nothing_in_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path / "empty.safetensors", {})
    assert main(["inspect", str(file)]) == 0
    assert "0 tensors, 0 parameters, 0 B, in 1 file" in capsys.readouterr().out


def test_files_of_an_index_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    for name, key in zip(names, "ab", strict=True):
        write(tmp_path / name, {key: np.zeros(4, "f4")})
    index = {"weight_map": {"a": names[0], "b": names[1]}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert main(["inspect", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "2 tensors, 8 parameters, 32 B, in 2 files" in out
    assert all(name in out for name in names)


def test_verify_compares_with_the_sidecar(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sidecar = Path(f"{file}.sha256")
    sidecar.write_text(hashlib.sha256(file.read_bytes()).hexdigest() + "  model.safetensors\n")
    assert main(["inspect", str(file), "--verify"]) == 0
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert main(["inspect", str(file)]) == 0
    capsys.readouterr()
    assert main(["inspect", str(file), "--verify"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "is not the file it should be: sha256" in err


def test_no_weight_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A terabyte that is a hole in a sparse file is shown at once."""
    nbytes = 1 << 40
    file = tmp_path / "huge.safetensors"
    head = craft({"w": entry("F32", [nbytes // 4], 0, nbytes)})
    with open(file, "wb") as sparse:
        sparse.write(head)
        try:
            sparse.truncate(len(head) + nbytes)
        except OSError:  # a file system with a lower limit: a terabyte is no point, a hole is
            pytest.fail("the temporary folder's file system holds no sparse files of a terabyte")
    assert main(["inspect", str(file)]) == 0
    assert "274.9 B parameters, 1.1 TB" in capsys.readouterr().out


def test_a_truncated_file_is_a_problem_in_the_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "cut.safetensors"
    file.write_bytes(checkpoint(weights())[:-1])
    assert main(["inspect", str(file)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert "cut.safetensors" in err


def test_the_trained_model(minilm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(minilm), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert len(document["tensors"]) == 104
    assert document["parameters"] == 22_713_728
    assert document["metadata"] == {"format": "pt"}
