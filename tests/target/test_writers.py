"""Writers that are killed, two at once, and where a target may lie."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import bridge
from bridge.target.existing import BESIDE
from tests.errors.promised import text_of
from tests.save.files import INDEX, read
from tests.target import killing
from tests.target.places import MANY, NEW, OLD, ONE, STANDING, expected, held, names, save


def test_killed_at_random_moments(tmp_path: Path):
    """`scripts/killtest` runs for longer."""
    text = killing.run(tmp_path, kills=200, seed=int.from_bytes(os.urandom(4)), longest=0.02)
    assert text.startswith("200 kills, ")


TWO = """
import sys
from pathlib import Path
from tests.target.killing import found, write
from tests.errors.promised import text_of
target, first = Path(sys.argv[1]), int(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
for number in range(first, first + 40, 2):
    write(target, number)
"""


def test_two_writers_at_once(tmp_path: Path):
    target = tmp_path / "target"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    writers = [subprocess.Popen([sys.executable, "-c", TWO, target, str(first)], **pipes) for first in (1, 2)]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n", writer.communicate()
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        _, errors = writer.communicate(timeout=60)
        assert (writer.returncode, errors) == (0, "")
    assert killing.found(target) in (39, 40)
    with bridge.open(target) as ckpt:
        beside = json.loads(ckpt.metadata.get(BESIDE, "[]"))
        assert names(target) - {INDEX} == {*ckpt.files, *beside}


def test_without_leave_the_second_of_two_writers_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    target = tmp_path / "target"

    def meanwhile(done: int, nbytes: int) -> None:
        if done == nbytes:
            bridge.save(OLD, target, "** -> **")

    with pytest.raises(bridge.SaveError) as caught:
        bridge.save(NEW, target, "** -> **", progress=meanwhile)
    assert str(caught.value) == text_of("save: without overwrite").replace("'.'", f"'{target}'")
    assert held(target) == expected(OLD)
    assert names(target) == {"model.safetensors"}


@pytest.mark.parametrize("first", [ONE, MANY])
@pytest.mark.parametrize("second", [ONE, MANY])
def test_a_save_within_a_save(tmp_path: Path, first: int | str, second: int | str):
    """Another writer comes and goes while this one writes: the last to commit has the last word, and is whole."""
    STANDING["many_files"](tmp_path)

    def meanwhile(done: int, nbytes: int) -> None:
        if done == nbytes:
            save(OLD, tmp_path, second)
            assert held(tmp_path) == expected(OLD)

    report = bridge.save(NEW, tmp_path, "** -> **", max_shard_size=first, overwrite=True, progress=meanwhile)
    assert held(tmp_path) == expected(NEW)
    assert names(tmp_path) == set(report.files)


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
@pytest.mark.parametrize("limit", [ONE, MANY])
def test_modes_follow_the_umask(tmp_path: Path, mask: int, mode: int, limit: int | str):
    before = os.umask(mask)
    try:
        save(OLD, tmp_path / "new", limit)
        bridge.convert(tmp_path / "new", tmp_path / "converted")
        bridge.revert(tmp_path / "converted", tmp_path / "back")
    finally:
        os.umask(before)
    for folder in ("new", "converted", "back"):
        for path in (tmp_path / folder).iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == mode, path
        assert stat.S_IMODE((tmp_path / folder).stat().st_mode) == 0o777 & ~mask


def test_a_linked_folder(tmp_path: Path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real", target_is_directory=True)
    save(OLD, tmp_path / "link", MANY)
    save(NEW, tmp_path / "link", ONE)
    assert (tmp_path / "link").is_symlink()
    assert held(tmp_path / "real") == expected(NEW)
    assert names(tmp_path / "real") == {"model.safetensors"}


def test_links_to_files_are_replaced_and_not_followed(tmp_path: Path):
    """As the Hub's cache has them: the blobs belong to other revisions too."""
    STANDING["many_files"](tmp_path / "blobs")
    (tmp_path / "snapshot").mkdir()
    for path in (tmp_path / "blobs").iterdir():
        (tmp_path / "snapshot" / path.name).symlink_to(path)
    save(NEW, tmp_path / "snapshot", ONE)
    assert held(tmp_path / "snapshot") == expected(NEW)
    assert names(tmp_path / "snapshot") == {"model.safetensors"}
    assert held(tmp_path / "blobs") == expected(OLD)


def test_a_linked_file(tmp_path: Path):
    STANDING["one_file"](tmp_path)
    (tmp_path / "x.safetensors").symlink_to("model.safetensors")
    save(NEW, tmp_path / "x.safetensors", ONE)
    assert read(tmp_path / "x.safetensors") == expected(NEW)
    assert read(tmp_path / "model.safetensors") == expected(OLD)


def test_parents_are_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    save(OLD, Path("a/b/c"), MANY)
    save(OLD, Path("d/e/x.safetensors"), ONE)
    save(OLD, Path("y.safetensors"), ONE)
    assert held(tmp_path / "a/b/c") == held(tmp_path / "d/e/x.safetensors") == held(tmp_path / "y.safetensors")


def test_over_the_folder_that_is_being_read(tmp_path: Path):
    STANDING["many_files"](tmp_path)
    with bridge.open(tmp_path) as ckpt:
        plan = bridge.plan(ckpt, None, "** -> **")
        model = bridge.load(ckpt, None, plan)
        bridge.save({key: value + 1 for key, value in model.items()}, tmp_path, plan, overwrite=True)
    assert held(tmp_path) == expected({key: array + np.float32(1) for key, array in OLD.items()})


def test_over_the_converted_folder_that_is_mapped(tmp_path: Path):
    tensors = {"w": np.arange(4096, dtype=np.float32), "b": np.arange(64, dtype=np.float32)}
    save(tensors, tmp_path, ONE)
    bridge.convert(tmp_path, tmp_path, overwrite=True)
    mapped = bridge.load(tmp_path, None)
    bridge.save(mapped, tmp_path, "** -> **", overwrite=True)
    assert held(tmp_path) == expected(tensors) == expected({key: np.asarray(value) for key, value in mapped.items()})
    bridge.convert(tmp_path, tmp_path, overwrite=True)
    bridge.revert(tmp_path, tmp_path, overwrite=True)
    assert held(tmp_path) == expected(tensors)
    assert names(tmp_path) == {"model.safetensors"}
