"""The converted form from a stranger, or damaged: a `CheckpointError`, and no file elsewhere is touched."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bridge
from bridge.converted import MARK
from bridge.target.existing import BESIDE
from tests.errors.promised import text_of
from tests.save.files import INDEX, finite, metadata, read, struct, write

TENSORS = {"x.0": finite((4,)), "x.1": finite((4,), seed=1), "drop": finite((3,))}
RULES = ["x.{l} -> w", "drop -> _"]
LIKE = {"w": struct((2, 4))}


@pytest.fixture
def converted(tmp_path: Path) -> Path:
    source = write(tmp_path / "source/model.safetensors", TENSORS)
    bridge.convert(source, tmp_path / "converted", LIKE, RULES)
    assert {path.name for path in (tmp_path / "converted").iterdir()} == {
        "model.safetensors",
        "bridge.json",
        "bridge.original",
    }
    return tmp_path / "converted"


def changed(converted: Path, change: Callable[[dict[str, Any]], None]) -> None:
    record = json.loads((converted / "bridge.json").read_text())
    change(record)
    (converted / "bridge.json").write_text(json.dumps(record))


def put(*path: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(record: dict[str, Any]) -> None:
        node: Any = record
        for step in path[:-1]:
            node = node[step]
        if value is None:
            del node[path[-1]]
        else:
            node[path[-1]] = value

    return change


HEADER = '{"x.0":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}'
DAMAGES: dict[str, Callable[[dict[str, Any]], None]] = {
    "no version": put("version", value=None),
    "another version": put("version", value=2),
    "no files": put("files", value=None),
    "empty files": put("files", value=[]),
    "files of another type": put("files", value={"a": 1}),
    "a file without a name": put("files", 0, "name", value=None),
    "a file of a number": put("files", 0, "name", value=7),
    "a file above": put("files", 0, "name", value="../evil.safetensors"),
    "a file elsewhere": put("files", 0, "name", value="/elsewhere/evil.safetensors"),
    "a hidden file": put("files", 0, "name", value=".journal"),
    "a hidden folder": put("files", 0, "name", value=".ssh/x.safetensors"),
    "a NUL": put("files", 0, "name", value="a\0b"),
    "no header": put("files", 0, "header", value=None),
    "a header of a number": put("files", 0, "header", value=7),
    "a header that is no JSON": put("files", 0, "header", value="{"),
    "a header of a list": put("files", 0, "header", value="[]"),
    "a header of nothing": put("files", 0, "header", value="{}"),
    "a header of other keys": put("files", 0, "header", value=HEADER.replace("x.0", "y")),
    "a header of other shapes": put("files", 0, "header", value=HEADER.replace("16", "8").replace("[4]", "[2]")),
    "a header without offsets": put("files", 0, "header", value='{"x.0":{}}'),
    "a header of bad offsets": put("files", 0, "header", value='{"x.0":{"data_offsets":7},"x.1":{"data_offsets":"a"}}'),
    "no stale": put("files", 0, "stale", value=None),
    "stale of numbers": put("files", 0, "stale", value=[1]),
    "stale keys that are not": put("files", 0, "stale", value=["x.0"]),
    "an index above": put("index", value='{"weight_map": {"a": "../../x"}}'),
    "an index of other files": put("index", value='{"weight_map": {"a": "x.safetensors"}}'),
    "an index that is no JSON": put("index", value="{"),
    "an index of a number": put("index", value=7),
    "no plan": put("plan", value=None),
    "a plan of a number": put("plan", value=7),
    "a plan of nothing": put("plan", value={}),
    "a plan of another version": put("plan", "version", value=9),
    "a plan of bad rules": put("plan", "rules", value=["a ->"]),
    "a plan of no rules": put("plan", "rules", value=["nothing -> _"]),
    "a plan of other leaves": put("plan", "leaves", "w", value=["F32", 4, 2]),
    "a plan of another dtype": put("plan", "leaves", "w", value=["F16", 2, 4]),
    "a plan of no dtype": put("plan", "leaves", "w", value=["F99", 2, 4]),
    "a plan of other keys": put("plan", "keys", value={"x.0": ["F32", 4], "x.1": ["F32", 4], "z": ["F32", 3]}),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_record(tmp_path: Path, converted: Path, damage: str):
    changed(converted, DAMAGES[damage])
    with pytest.raises(bridge.CheckpointError, match="converted"):
        bridge.revert(converted, tmp_path / "back")
    assert not (tmp_path / "back").exists()
    assert (
        np.asarray(bridge.load(converted, LIKE)["w"]).tobytes() == TENSORS["x.0"].tobytes() + TENSORS["x.1"].tobytes()
    )


@pytest.mark.parametrize("text", ["", "[]", "7", "null", "[" * 100_000, "{", b"\xff\xfe", '{"version": 1}'])
def test_a_record_of_another_kind(tmp_path: Path, converted: Path, text: str | bytes):
    (converted / "bridge.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(bridge.CheckpointError, match="has lost the record of its conversion"):
        bridge.revert(converted, tmp_path / "back")
    with pytest.raises(bridge.CheckpointError, match="has lost the record of its conversion"):
        bridge.load(converted, LIKE, RULES)


@pytest.mark.parametrize("name", ["bridge.json", "bridge.original"])
def test_a_missing_file(tmp_path: Path, converted: Path, name: str):
    (converted / name).unlink()
    with pytest.raises(bridge.CheckpointError, match=name):
        bridge.revert(converted, tmp_path / "back")
    bridge.load(converted, LIKE)


def test_originals_that_were_cut(tmp_path: Path, converted: Path):
    raw = (converted / "bridge.original").read_bytes()
    (converted / "bridge.original").write_bytes(raw[:-4])
    with pytest.raises(bridge.CheckpointError, match=r"bridge\.original"):
        bridge.revert(converted, tmp_path / "back")


def test_originals_of_another_conversion(tmp_path: Path, converted: Path):
    write(converted / "bridge.original", {"other": finite((3,))})
    with pytest.raises(bridge.CheckpointError) as caught:
        bridge.revert(converted, tmp_path / "back")
    text = text_of("revert: a key that nothing holds any more")
    assert str(caught.value) == text.replace("'converted/", f"'{converted}/")


ELSEWHERE = [
    '["../secret.json", "../secret.safetensors"]',
    '["/etc/passwd", "/etc/passwd"]',
    '["secret.json", "secret.safetensors"]',
    '["bridge.json"]',
    '["bridge.json", 7]',
    "[]",
    "{}",
    "no JSON",
    '["bridge.json\\u0000", "bridge.original"]',
]


@pytest.mark.parametrize("beside", ELSEWHERE)
def test_names_in_metadata_are_neither_followed_nor_removed(tmp_path: Path, beside: str):
    """A stranger's file may name any file: what `convert` itself never writes is not looked at."""
    folder = tmp_path / "stranger"
    write(folder / "model.safetensors", {"w": finite((2, 4))}, {MARK: "1", BESIDE: beside})
    others = [
        tmp_path / "secret.json",
        tmp_path / "secret.safetensors",
        folder / "secret.json",
        folder / "secret.safetensors",
    ]
    for path in others:
        path.write_text("mine")
    with pytest.raises(bridge.CheckpointError) as caught:
        bridge.revert(folder, tmp_path / "back")
    assert "mine" not in str(caught.value)
    bridge.save({"w": finite((2, 4))}, folder, "** -> **", overwrite=True)
    assert [path.read_text() for path in others] == ["mine"] * 4
    assert metadata(folder / "model.safetensors") == {"format": "pt"}


def test_an_index_that_leads_out_through_a_link(tmp_path: Path):
    """A cloned repository may hold links: nothing behind one is removed or written."""
    (tmp_path / "mine").mkdir()
    write(tmp_path / "mine/x.safetensors", {"a": finite((2,))})
    folder = tmp_path / "stranger"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "mine", target_is_directory=True)
    (folder / INDEX).write_text(json.dumps({"weight_map": {"a": "link/x.safetensors"}}))
    bridge.save({"a": finite((2,), seed=1)}, folder, "** -> **", overwrite=True)
    assert (tmp_path / "mine/x.safetensors").exists()
    assert set(read(folder)) == {"a"}


def test_an_index_names_only_tensors(tmp_path: Path):
    """Overwriting removes what the old index names, but never what holds no tensors."""
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"a": "README.md"}}))
    bridge.save({"a": finite((2,))}, tmp_path, "** -> **", overwrite=True)
    assert (tmp_path / "README.md").read_text() == "mine"


def test_a_record_that_would_write_behind_a_link(tmp_path: Path, converted: Path):
    changed(converted, put("files", 0, "name", value="link/x.safetensors"))
    changed(converted, put("index", value='{"weight_map": {"x.0": "link/x.safetensors"}}'))
    (tmp_path / "mine").mkdir()
    target = tmp_path / "target"
    target.mkdir()
    (target / "link").symlink_to(tmp_path / "mine", target_is_directory=True)
    with pytest.raises(bridge.SaveError, match="would be written elsewhere, through a symbolic link"):
        bridge.revert(converted, target)
    assert list((tmp_path / "mine").iterdir()) == []


def test_a_journal_from_a_stranger_removes_nothing(tmp_path: Path):
    """It names files by their inodes: it cannot have been written here."""
    stage = tmp_path / ".eqx-bridge-0123456789abcdef"
    stage.mkdir()
    (stage / ".lock").write_text("")
    mine = write(tmp_path / "mine.safetensors", {"a": finite((2,))})
    entry = [1, 2, mine.stat().st_size, 3]
    journal = {"new": {"mine.safetensors": entry, "../x": entry}, "old": {}, "lent": {}, "leaving": None}
    (stage / ".journal").write_text(json.dumps(journal))
    bridge.save({"a": finite((2,))}, tmp_path / "x.safetensors", "** -> **")
    assert not stage.exists()
    assert mine.exists()
