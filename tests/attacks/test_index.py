"""Every abuse of an index is stopped by its rule, in these words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bridge import _errors
from bridge.format.index import parse_index
from bridge.source import open_checkpoint
from tests.craft import checkpoint

DAMAGED = "The index is damaged or was written by a faulty tool: fetch it again, or save the checkpoint again."
DISTRUST = (
    "A file of an index lies in the index's folder or below. Do not use this checkpoint unless you trust its maker."
)
NAME = "model.safetensors.index.json"


def index(weight_map: Any) -> bytes:
    return json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}).encode()


# No name leaves the folder of the index, on any system.
@pytest.mark.parametrize(
    ("file", "problem"),
    [
        ("", "is empty"),
        ("../x.safetensors", "has '..', '.' or nothing between its slashes"),
        ("a/../../x.safetensors", "has '..', '.' or nothing between its slashes"),
        ("a/..", "has '..', '.' or nothing between its slashes"),
        ("./x.safetensors", "has '..', '.' or nothing between its slashes"),
        ("a//x.safetensors", "has '..', '.' or nothing between its slashes"),
        ("a/", "has '..', '.' or nothing between its slashes"),
        ("/etc/passwd", "is absolute"),
        ("//host/share", "is absolute"),
        ("C:/x.safetensors", "is absolute"),
        ("c:x.safetensors", "is absolute"),
        ("..\\x.safetensors", "holds a backslash"),
        ("\\\\host\\share", "holds a backslash"),
        ("https://example.com/x.safetensors", "is a URL"),
        ("file:///etc/passwd", "is a URL"),
        ("x\0.safetensors", "holds a NUL"),
    ],
)
def test_no_name_leaves_the_folder(file: str, problem: str):
    with pytest.raises(_errors.CheckpointError) as caught:
        parse_index(index({"a": "good.safetensors", "b": file}), name=NAME)
    shown = file.replace("\0", "\\x00")
    assert str(caught.value) == f"'{NAME}': weight_map 'b' names '{shown}', which {problem}. {DISTRUST}"


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b"", "the index is not JSON from line 1 column 1 on"),
        (b"\xef\xbb\xbf{}", "the index is not JSON from line 1 column 1 on"),
        (b"\xff", "the index is not UTF-8: byte 0xff at 0"),
        (b"[" * 100_000, "the index is nested deeper than 127 levels"),
        (b"[]", "the index must be a JSON object, got a list"),
        (b"{}", "the index has no weight_map, which says where each key lies"),
        (b'{"weight_map":null}', "weight_map must be an object, got null"),
        (b'{"weight_map":[["a","b"]]}', "weight_map must be an object, got a list"),
        (b'{"weight_map":{"a":1}}', "weight_map 'a' must be a file name, got the number 1"),
        (b'{"weight_map":{"a":null}}', "weight_map 'a' must be a file name, got null"),
        (b'{"weight_map":{"a":["x"]}}', "weight_map 'a' must be a file name, got a list"),
        (b'{"weight_map":{},"metadata":[]}', "metadata must be an object, got a list"),
        (b'{"weight_map":{"a":"x","a":"y"}}', "the index holds the name 'a' twice in one object"),
        (b'{"weight_map":{"a":"x"},"weight_map":{}}', "the index holds the name 'weight_map' twice in one object"),
        (b'{"weight_map":{"a":"\\ud800"}}', "the index holds a lone surrogate, which is no character, in '\\ud800'"),
        (b'{"weight_map":{},"metadata":{"n":NaN}}', "the index holds NaN, which JSON does not know"),
        (
            b'{"weight_map":{},"n":' + b"9" * 5000 + b"}",
            "the index holds the number '" + "9" * 180 + "…" + "9" * 100 + "', which is out of range",
        ),
    ],
    ids=lambda value: ascii(value[:30]),
)
def test_malformed(raw: bytes, problem: str):
    with pytest.raises(_errors.CheckpointError) as caught:
        parse_index(raw, name=NAME)
    assert str(caught.value) == f"'{NAME}': {problem}. {DAMAGED}"


def test_a_git_lfs_pointer():
    with pytest.raises(_errors.CheckpointError) as caught:
        parse_index(b"version https://git-lfs.github.com/spec/v1\n", name=NAME)
    assert str(caught.value) == f"'{NAME}' is a Git LFS pointer, not the file: run `git lfs pull` in its repository."


def test_the_size_cap_comes_before_the_memory(tmp_path: Path):
    with (tmp_path / NAME).open("wb") as f:
        f.truncate(10**12)  # sparse: nothing on the disk, a terabyte if it were read
    with pytest.raises(_errors.CheckpointError) as caught:
        open_checkpoint(tmp_path)
    assert str(caught.value) == (
        f"'{tmp_path}/{NAME}' holds 1,000,000,000,000 bytes; an index may have 100,000,000. Check where it came from."
    )


def test_stale_total_size_and_further_fields_are_nobodys_business(tmp_path: Path):
    (tmp_path / "x.safetensors").write_bytes(checkpoint({"a": np.zeros(3, np.float32)}))
    (tmp_path / NAME).write_bytes(
        b'{"metadata":{"total_size":-1,"x":[]},"weight_map":{"a":"x.safetensors"},"quantization":{"bits":4}}'
    )
    with open_checkpoint(tmp_path) as ckpt:
        assert list(ckpt) == ["a"]
        assert ckpt.index is not None
        assert ckpt.index.metadata == {"total_size": -1, "x": []}
