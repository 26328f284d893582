"""The commit rule: at every moment the target is the old checkpoint or the new one, whole."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import bridge
from tests.save.files import INDEX, read
from tests.target.places import ABSENT, MANY, NEW, OLD, ONE, STANDING, expected, held, names, save, watched


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is not waited for: nothing here pulls its plug."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


SEVERAL = {f"model-0000{n}-of-00004.safetensors" for n in (1, 2, 3, 4)} | {INDEX}


def others(before: set[str], after: set[str]) -> set[str]:
    """Files that belong to neither checkpoint: an empty folder may stay where files lay."""
    return {name for name in after if name != "part"} - before


@pytest.mark.parametrize("limit", [ONE, MANY])
@pytest.mark.parametrize("build", STANDING)
def test_old_or_new_after_every_change_of_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, build: str, limit: int | str
):
    target = tmp_path / "target"
    STANDING[build](target)
    assert held(target) == expected(OLD)
    with watched(monkeypatch, target, tmp_path / "killed") as snapshots:
        report = save(NEW, target, limit)
    assert held(target) == expected(NEW)
    assert read(target) == expected(NEW)
    assert others(set(), names(target)) == set(report.files)
    seen = [held(snapshot) for snapshot in snapshots]
    assert seen == sorted(seen, key=lambda found: found == expected(NEW))  # old ones first, then new ones
    assert all(found in (expected(OLD), expected(NEW)) for found in seen)


@pytest.mark.parametrize("limit", [ONE, MANY])
@pytest.mark.parametrize("build", [*STANDING, *ABSENT])
def test_the_next_save_cleans_up_wherever_the_last_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, build: str, limit: int | str
):
    target = tmp_path / "target"
    (STANDING | ABSENT)[build](target)
    alone = names(target) if build in ABSENT else set()
    with watched(monkeypatch, target, tmp_path / "killed") as snapshots:
        save(NEW, target, limit)
    assert snapshots
    for snapshot in snapshots:
        report = save(OLD, snapshot, ONE if limit == MANY else MANY)
        assert held(snapshot) == expected(OLD), snapshot
        assert others(alone, names(snapshot)) == set(report.files)


@pytest.mark.parametrize("limit", [ONE, MANY])
@pytest.mark.parametrize("build", ABSENT)
def test_nothing_or_all_where_nothing_stood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, build: str, limit: int | str
):
    target = tmp_path / "target"
    ABSENT[build](target)
    with watched(monkeypatch, target, tmp_path / "killed") as snapshots:
        save(NEW, target, limit)
    assert held(target) == expected(NEW)
    assert all(held(snapshot) in (None, expected(NEW)) for snapshot in snapshots)
    # What a killed writer began is no checkpoint: the next one needs no leave to write there.
    for snapshot in snapshots:
        if held(snapshot) is None:
            bridge.save(OLD, snapshot, "** -> **")
            assert held(snapshot) == expected(OLD)


def test_back_and_forth(tmp_path: Path):
    for n in range(3):
        assert set(save(NEW, tmp_path, MANY).files) == names(tmp_path)
        assert held(tmp_path) == expected(NEW), n
        assert set(save(OLD, tmp_path, MANY).files) == names(tmp_path)
        assert held(tmp_path) == expected(OLD)
        assert save(NEW, tmp_path, ONE).files == ("model.safetensors",)
        assert names(tmp_path) == {"model.safetensors"}
        assert held(tmp_path) == expected(NEW)
        assert save(OLD, tmp_path, ONE).files == ("model.safetensors",)
    assert names(tmp_path) == {"model.safetensors"}


def test_a_first_save_has_the_usual_names(tmp_path: Path):
    assert set(save(NEW, tmp_path / "new", MANY).files) == SEVERAL == names(tmp_path / "new")


def test_what_else_lies_there_stays(tmp_path: Path):
    aside = [
        "config.json",
        "adapter_model.safetensors",
        "consolidated.safetensors",
        "original/x.safetensors",
        ".hidden",
    ]
    STANDING["many_files"](tmp_path)
    for name in aside:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"mine")
    report = save(NEW, tmp_path, ONE)
    assert names(tmp_path) == {*aside, "original", *report.files}
    assert all((tmp_path / name).read_bytes() == b"mine" for name in aside)


def test_one_file_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "x.safetensors"
    assert save(OLD, path, MANY).files == ("x.safetensors",)
    STANDING["many_files"](tmp_path)
    before = names(tmp_path)
    with watched(monkeypatch, tmp_path, tmp_path.with_name("killed")) as snapshots:
        save(NEW, path, MANY)
    assert names(tmp_path) == before
    assert read(path) == expected(NEW)
    assert all(read(snapshot / path.name) in (expected(OLD), expected(NEW)) for snapshot in snapshots)
