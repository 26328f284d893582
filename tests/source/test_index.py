"""A folder with an index: the index decides, and its files must be what it says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import bridge
from bridge import _errors
from bridge.source import open_checkpoint
from tests.craft import checkpoint
from tests.errors.promised import text_of

A, B, C = (np.full(3, value, np.float32) for value in (1, 2, 3))
NAME = "model.safetensors.index.json"


def folder(path: Path, weight_map: dict[str, str], **files: dict[str, np.ndarray]) -> Path:
    """A folder of files `x.safetensors` by keyword, `sub__x` for one in a folder below, and an index."""
    for name, tensors in files.items():
        file = path / (name.replace("__", "/") + ".safetensors")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(checkpoint(tensors, {"format": "pt", "file": name}))
    (path / NAME).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return path


def test_files_keys_and_tensors(tmp_path: Path):
    weight_map = {"c": "y.safetensors", "a": "x.safetensors", "b": "x.safetensors"}
    with open_checkpoint(folder(tmp_path, weight_map, x={"b": B, "a": A}, y={"c": C})) as ckpt:
        assert ckpt.files == ("x.safetensors", "y.safetensors")
        assert list(ckpt) == list(ckpt.keys()) == list(ckpt.specs) == ["b", "a", "c"]
        assert [(key, spec.file) for key, spec in ckpt.specs.items()] == [
            ("b", "x.safetensors"),
            ("a", "x.safetensors"),
            ("c", "y.safetensors"),
        ]
        assert all(ckpt.specs[key] == spec for key, spec in ckpt.specs.items())
        assert ckpt["c"].tobytes() == C.tobytes()
        assert ckpt.metadata == {"format": "pt", "file": "x"}  # where files disagree, the first one's word
        assert ckpt.header("y.safetensors").metadata == {"format": "pt", "file": "y"}
        assert ckpt.commit is None


def test_what_the_index_does_not_list_is_left_alone(tmp_path: Path):
    path = folder(tmp_path, {"a": "x.safetensors", "b": "y.safetensors"}, x={"a": A, "b": C, "old": C}, y={"b": B})
    (path / "stale.safetensors").write_bytes(b"not even safetensors")
    with open_checkpoint(path) as ckpt:
        assert list(ckpt) == ["a", "b"]
        assert ckpt["b"].tobytes() == B.tobytes()  # the index says which of the two counts
        assert "old" not in ckpt


def test_the_index_decides_over_a_single_file(tmp_path: Path):
    path = folder(tmp_path, {"a": "x.safetensors"}, x={"a": A}, model={"z": C})
    with open_checkpoint(path) as ckpt:
        assert list(ckpt) == ["a"]


def test_a_file_in_a_folder_below(tmp_path: Path):
    path = folder(tmp_path, {"a": "sub/x.safetensors"}, sub__x={"a": A})
    with open_checkpoint(path) as ckpt:
        assert ckpt.files == ("sub/x.safetensors",)
        assert ckpt["a"].tobytes() == A.tobytes()


def test_an_index_of_nothing(tmp_path: Path):
    with open_checkpoint(folder(tmp_path, {})) as ckpt:
        assert (len(ckpt), ckpt.files, ckpt.metadata) == (0, (), {})


def test_a_missing_file(tmp_path: Path):
    path = folder(tmp_path, {"a": "x.safetensors", "b": "gone.safetensors"}, x={"a": A})
    with pytest.raises(_errors.CheckpointError) as caught:
        open_checkpoint(path)
    assert str(caught.value) == (
        text_of("index: a name that is of no file")
        .replace("'model.safetensors.index.json'", f"'{NAME}'")
        .replace("'./'", f"'{path}/'")
        .replace("'./z.safetensors'", f"'{path}/gone.safetensors'")
    )


@pytest.mark.parametrize(
    ("elsewhere", "found"), [(True, "it is in 'y.safetensors'"), (False, "no file of the index holds it")]
)
def test_a_key_that_is_not_where_the_index_has_it(elsewhere: bool, found: str, tmp_path: Path):
    y = {"c": C, "b": B} if elsewhere else {"c": C}
    weight_map = {"a": "x.safetensors", "b": "x.safetensors", "c": "y.safetensors"}
    with pytest.raises(_errors.CheckpointError) as caught:
        open_checkpoint(folder(tmp_path, weight_map, x={"a": A}, y=y))
    assert str(caught.value) == (
        text_of("index: a key that no file holds")
        .replace("'model.safetensors.index.json'", f"'{NAME}'")
        .replace("'./'", f"'{tmp_path}/'")
        .replace("'c'", "'b'")
        .replace("no file of the index holds it", f"{found}")
    )


def test_a_key_that_the_index_leaves_out(tmp_path: Path):
    """It is told where it lies; a list of the files has it."""
    path = folder(tmp_path / "m", {"a": "x.safetensors", "c": "y.safetensors"}, x={"a": A, "b": B}, y={"c": C})
    with open_checkpoint(path) as ckpt:
        assert "b" not in ckpt
        with pytest.raises(KeyError) as caught:
            ckpt["b"]
        assert "whose index leaves it out. Open its files as a list: 'x.safetensors' holds it." in str(caught.value)
    like = {"a": A, "b": B, "c": C}
    with pytest.raises(bridge.PlanError) as error:
        bridge.load(path, like)
    first, second, *_ = str(error.value).split("\n")
    assert first.endswith(f"'b' lies in 'x.safetensors', and the index '{NAME}' leaves it out")
    assert second == f"  the index decides; a list of the files, ['{path}/x.safetensors', …], has all keys"
    found = bridge.load([path / "x.safetensors", path / "y.safetensors"], like)
    assert all(np.array_equal(found[key], value) for key, value in like.items())
