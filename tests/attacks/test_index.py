"""Every abuse of an index is stopped by its rule, in these words."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bridge import _errors
from bridge.format.index import parse_index
from bridge.source import open_checkpoint
from tests.attacks.index_cases import ABUSES, NAMES
from tests.craft import checkpoint, craft, entry
from tests.errors.promised import text_of

NAME = "model.safetensors.index.json"


def index(weight_map: Any) -> bytes:
    return json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}).encode()


@pytest.mark.parametrize("name", ABUSES)
def test_abuse_is_stopped(name: str):
    with pytest.raises(_errors.CheckpointError) as caught:
        parse_index(ABUSES[name], name=f"./{NAME}")
    assert str(caught.value) == text_of(f"index: {name}")


@pytest.mark.parametrize("what", NAMES)
def test_no_name_leaves_the_folder(what: str):
    with pytest.raises(_errors.CheckpointError, match="names "):
        parse_index(index({"a": "good.safetensors", "b": NAMES[what]}), name=NAME)


def test_the_size_cap_comes_before_the_memory(tmp_path: Path):
    with (tmp_path / NAME).open("wb") as f:
        f.truncate(10**12)  # sparse: nothing on the disk, a terabyte if it were read
    with pytest.raises(_errors.CheckpointError) as caught:
        open_checkpoint(tmp_path)
    assert str(caught.value).replace(str(tmp_path), ".") == text_of("index: too large")


def test_stale_total_size_and_further_fields_are_nobodys_business(tmp_path: Path):
    (tmp_path / "x.safetensors").write_bytes(checkpoint({"a": np.zeros(3, np.float32)}))
    (tmp_path / NAME).write_bytes(
        b'{"metadata":{"total_size":-1,"x":[]},"weight_map":{"a":"x.safetensors"},"quantization":{"bits":4}}'
    )
    with open_checkpoint(tmp_path) as ckpt:
        assert list(ckpt) == ["a"]
        assert ckpt.index is not None
        assert ckpt.index.metadata == {"total_size": -1, "x": []}


# ---- what the names of an index lead to


def place(folder: Path, weight_map: Any) -> Path:
    (folder / "x.safetensors").write_bytes(checkpoint({"a": np.zeros(3, np.float32)}))
    (folder / NAME).write_bytes(index(weight_map))
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(_errors.CheckpointError) as caught:
        open_checkpoint(folder)
    return str(caught.value).replace(str(folder), ".")


# Names that other systems bend into good ones are here names of files like any other, and no such file is there.
@pytest.mark.parametrize(
    "file",
    ["X.safetensors", "x.safetensors.", "x.safetensors ", "x.safetensors:s", "~/x.safetensors", "%2e%2e/x", "$HOME"],
)
def test_names_are_taken_to_the_letter(file: str, tmp_path: Path):
    said = text_of("index: a name that is of no file").replace("z.safetensors", file)
    assert refusal(place(tmp_path, {"a": file})) == said


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (os.mkdir, "a directory"),
        (os.mkfifo, "a named pipe"),
        (lambda path: os.symlink("/dev/zero", path), "a device"),
        (lambda path: os.symlink("/", path), "a directory"),
    ],
)
def test_what_is_no_file(make: Any, kind: str, tmp_path: Path):
    make(tmp_path / "y.safetensors")
    message = refusal(place(tmp_path, {"a": "x.safetensors", "b": "y.safetensors"}))
    assert f"'./y.safetensors' is {kind}, not a file." in message


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.symlink("/dev/zero", path)])
def test_an_index_that_is_no_file(make: Any, tmp_path: Path):
    make(tmp_path / NAME)
    assert refusal(tmp_path).startswith(f"'./{NAME}' is a ")


def test_links_are_followed_as_the_hub_s_cache_needs(tmp_path: Path):
    (tmp_path / "snapshot").mkdir()
    place(tmp_path, {"a": "x.safetensors"})
    for name in ("x.safetensors", NAME):
        (tmp_path / "snapshot" / name).symlink_to(f"../{name}")
    with open_checkpoint(tmp_path / "snapshot") as ckpt:
        assert list(ckpt) == ["a"]


def test_a_link_to_what_is_no_checkpoint_gives_nothing_away(tmp_path: Path):
    """A link may lead anywhere; what lies there must be a checkpoint, and its bytes are not in the message."""
    (tmp_path / "secret").write_text("hunter2 " * 100)
    (tmp_path / "y.safetensors").symlink_to("secret")
    message = refusal(place(tmp_path, {"a": "y.safetensors"}))
    assert message.startswith("'./y.safetensors' is plain text, not safetensors")
    assert "hunter" not in message


def test_links_in_a_circle_beside_a_checkpoint_do_not_hide_it(tmp_path: Path):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "gone").symlink_to("nowhere")
    with open_checkpoint(place(tmp_path, {"a": "x.safetensors"})) as ckpt:
        assert list(ckpt) == ["a"]


def test_an_index_of_a_hundred_thousand_entries(tmp_path: Path):
    count = 100_000
    parts = {f"{n:02}.safetensors": [f"k.{i}" for i in range(n, count, 20)] for n in range(20)}
    for file, keys in parts.items():
        tensors = {key: entry("U8", [1], n, n + 1) for n, key in enumerate(keys)}
        (tmp_path / file).write_bytes(craft(tensors, bytes(len(keys))))
    weight_map = {key: file for file, keys in parts.items() for key in keys}
    (tmp_path / NAME).write_bytes(index(weight_map))
    with open_checkpoint(tmp_path) as ckpt:
        assert len(ckpt) == count
    (tmp_path / NAME).write_bytes(index({f"k.{n}": f"{n}.safetensors" for n in range(count)}))
    assert "'./0.safetensors' does not exist." in refusal(tmp_path)
    (tmp_path / NAME).write_bytes(index({f"x.{n}": "00.safetensors" for n in range(count)}))
    assert refusal(tmp_path).startswith(
        f"'{NAME}' of './': key 'x.0' is not in '00.safetensors', although the index lists it there;"
    )
