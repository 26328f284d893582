"""The order of what reaches the disk: a power cut may come at any moment too, and names are files' last step."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import bridge
from tests.save.files import INDEX, write
from tests.target.places import MANY, NEW, OLD, ONE, STANDING, expected, held, nothing, save

BUILDS = {"nothing": nothing} | STANDING


class Disk:
    """What was synchronised, renamed and removed, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.events: list[tuple[str, str, str]] = []
        for name in ("rename", "replace", "link"):
            self.watch(monkeypatch, name, lambda source, target, **_: (str(source), str(target)))
        self.watch(monkeypatch, "unlink", lambda path, **_: (str(path), ""))
        self.watch(monkeypatch, "fsync", lambda descriptor: (os.readlink(f"/proc/self/fd/{descriptor}"), ""))

    def watch(self, monkeypatch: pytest.MonkeyPatch, name: str, said: Any) -> None:
        real = getattr(os, name)

        def call(*arguments: Any, **keywords: Any) -> Any:
            self.events.append((name, *said(*arguments, **keywords)))
            return real(*arguments, **keywords)

        monkeypatch.setattr(os, name, call)

    def check(self, target: Path) -> None:
        """Bytes before names, names before the one that commits, and that before the old files go."""
        synced: set[str] = set()
        dirty: set[str] = set()  # folders with names that the disk may not have yet
        moved: list[str] = []
        for name, source, to in self.events:
            if name == "fsync":
                synced.add(source)
                dirty.discard(source)
            elif name in ("rename", "replace") and Path(to).name != ".old-index":
                assert source in synced, f"{to} got its name before its bytes were on the disk"
                moved.append(to)
                last = to == self.last(target)
                assert not (dirty and last), f"{to} commits before the disk has the names in {dirty}"
                dirty.add(str(Path(to).parent))
            elif Path(to).name == ".old-index":
                assert not dirty, "the old index goes before the disk has the names of the new files"
                dirty.add(str(target))
            elif name == "unlink" and Path(source).is_relative_to(target) and ".eqx-bridge-" not in source:
                assert not dirty, f"{source} goes before the disk has the new checkpoint"
        assert moved
        assert not dirty, "the disk may not have the last name"

    def last(self, target: Path) -> str:
        """What was renamed last, out of the stage."""
        return [to for name, _, to in self.events if name in ("rename", "replace") and ".eqx-bridge-" not in to][-1]


@pytest.mark.parametrize("limit", [ONE, MANY])
@pytest.mark.parametrize("build", BUILDS)
def test_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, build: str, limit: int | str):
    target = tmp_path / "target"
    BUILDS[build](target)
    with monkeypatch.context() as patch:
        disk = Disk(patch)
        save(NEW, target, limit)
    disk.check(target)
    assert held(target) == expected(NEW)


@pytest.mark.parametrize("build", ["nothing", "many_files"])
def test_convert_and_revert(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, build: str):
    for name, key in (("a", "a"), ("part/b", "b")):
        write(tmp_path / f"source/{name}.safetensors", {key: NEW["b"]})
    (tmp_path / "source" / INDEX).write_text('{"weight_map": {"a": "a.safetensors", "b": "part/b.safetensors"}}')
    target, back = tmp_path / "target", tmp_path / "back"
    for folder in (target, back):
        BUILDS[build](folder)
    with monkeypatch.context() as patch:
        disk = Disk(patch)
        bridge.convert(tmp_path / "source", target, overwrite=True)
        disk.check(target)
        disk.events.clear()
        bridge.revert(target, back, overwrite=True)
        disk.check(back)
    assert bridge.diff(back, tmp_path / "source").equal


def test_the_order_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The test above can fail: without the waits it does."""
    monkeypatch.setattr("bridge.target.commit.sync", lambda path: None)
    with monkeypatch.context() as patch:
        disk = Disk(patch)
        save(OLD, tmp_path, ONE)
    with pytest.raises(AssertionError, match="got its name before its bytes were on the disk"):
        disk.check(tmp_path)
