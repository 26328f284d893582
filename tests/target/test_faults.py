"""Every call to the disk fails once, at every place: a `SaveError` that is true, and nothing lost."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import bridge
from bridge.target.explain import UNCHANGED
from tests.errors.promised import text_of
from tests.target.places import MANY, NEW, OLD, ONE, STANDING, expected, held, names, nothing, save

BUILDS = {"nothing": nothing} | {name: STANDING[name] for name in ("other_name", "many_files", "index_beside_one")}
CALLS: list[tuple[ModuleType | type, str, int]] = [
    (os, "open", errno.EACCES),
    (os, "mkdir", errno.EROFS),
    (os, "pwrite", errno.ENOSPC),
    (os, "fstat", errno.EIO),
    (os, "fsync", errno.EIO),
    (os, "rename", errno.EACCES),
    (os, "replace", errno.EACCES),
    (os, "link", errno.EPERM),
    (os, "unlink", errno.EACCES),
    (fcntl, "flock", errno.ENOLCK),
    (Path, "write_text", errno.ENOSPC),
]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is not waited for: nothing here pulls its plug."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@contextmanager
def failing(where: ModuleType | type, name: str, number: int, at: int) -> Iterator[list[int]]:
    """Let call `at` of a function fail; the list has as many entries as it was called."""
    calls: list[int] = []
    real: Callable = getattr(where, name)

    def call(*args: object, **kwargs: object) -> object:
        calls.append(1)
        if len(calls) == at + 1:
            raise OSError(number, os.strerror(number))
        return real(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(where, name, call)
        yield calls


@pytest.mark.parametrize("limit", [ONE, MANY])
@pytest.mark.parametrize(("where", "name", "number"), CALLS, ids=[name for _, name, _ in CALLS])
@pytest.mark.parametrize("build", BUILDS)
def test_each_call_fails_once(
    tmp_path: Path, build: str, where: ModuleType | type, name: str, number: int, limit: int | str
):
    before = None if build == "nothing" else expected(OLD)
    failed = at = 0
    while True:
        target = tmp_path / str(at) / "target"
        target.parent.mkdir()
        BUILDS[build](target)
        error = None
        with failing(where, name, number, at) as calls:
            try:
                save(NEW, target, limit)
            except bridge.SaveError as caught:
                error = caught
        now = held(target)
        assert now == expected(NEW) if error is None else now in (before, expected(NEW))
        if error is not None:
            failed += 1
            assert str(target) in str(error) or "model" in str(error)
            assert os.strerror(number) in str(error)
            if UNCHANGED[0] in str(error):
                assert now == before
        report = save(OLD, target, ONE)
        assert held(target) == expected(OLD)
        assert names(target) - {"part"} == set(report.files)
        if len(calls) <= at:
            break
        at += 1
    assert at or name in ("link", "replace", "unlink", "mkdir")
    assert failed or name in ("flock", "link", "unlink", "replace", "mkdir")


@pytest.mark.parametrize("limit", [ONE, MANY])
def test_a_full_disk_leaves_the_old_checkpoint(tmp_path: Path, limit: int | str):
    save(OLD, tmp_path, ONE)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))  # Python ignores the signal: writing fails with EFBIG
    try:
        with pytest.raises(bridge.SaveError, match="File too large; nothing there has changed"):
            save({"big": np.zeros((64, 64), np.float32)}, tmp_path, limit)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert held(tmp_path) == expected(OLD)
    assert names(tmp_path) == {"model.safetensors"}


def test_a_failed_first_save_leaves_no_folder(tmp_path: Path):
    with failing(os, "pwrite", errno.ENOSPC, 0), pytest.raises(bridge.SaveError) as caught:
        save(NEW, tmp_path / "a/b/c", ONE)
    assert str(caught.value) == text_of("save: a full disk")
    assert names(tmp_path) == set()


def test_the_texts(tmp_path: Path):
    save(OLD, tmp_path / "out", ONE)
    with pytest.raises(bridge.SaveError) as caught:
        bridge.save(NEW, tmp_path / "out", "** -> **")
    assert str(caught.value) == text_of("save: without overwrite").replace("'.'", f"'{tmp_path}/out'")
    with pytest.raises(bridge.SaveError) as caught:
        bridge.save(NEW, tmp_path / "out/model.safetensors/x", "** -> **")
    assert str(caught.value) == (
        f"'{tmp_path}/out/model.safetensors/x' cannot be written to: Not a directory; "
        "nothing there has changed. Make room, or name another place."
    )
    (tmp_path / "x.safetensors").mkdir()
    with pytest.raises(bridge.SaveError) as caught:
        bridge.save(NEW, tmp_path / "x.safetensors", "** -> **")
    assert str(caught.value) == (
        text_of("save: a folder called like a file").replace("'x.safetensors'", f"'{tmp_path}/x.safetensors'")
    )
    (tmp_path / "file").write_text("")
    with pytest.raises(bridge.SaveError) as caught:
        bridge.save(NEW, tmp_path / "file", "** -> **")
    assert str(caught.value) == text_of("save: a file where a folder is named").replace("'out'", f"'{tmp_path}/file'")


@pytest.mark.parametrize("target", ["", "s3://bucket/model", "hf://org/name", "a\0b"])
def test_what_is_no_place(target: str):
    with pytest.raises(bridge.SaveError, match="is not a place to save to"):
        bridge.save(NEW, target, "** -> **")


@pytest.mark.parametrize("limit", [ONE, MANY])
@pytest.mark.parametrize("build", STANDING)
@pytest.mark.parametrize("name", ["rename", "replace"])
def test_an_interrupt_right_after_a_rename(tmp_path: Path, name: str, build: str, limit: int | str):
    """It may come between the rename that commits and the line that follows: nothing that counts is taken back."""
    for at in range(10):
        target = tmp_path / str(at) / "target"
        target.parent.mkdir()
        STANDING[build](target)
        calls: list[int] = []
        real = getattr(os, name)

        def interrupted(*args: object, calls: list[int] = calls, at: int = at, real: Callable = real) -> None:
            real(*args)
            calls.append(1)
            if len(calls) == at + 1:
                raise KeyboardInterrupt

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, name, interrupted)
            try:
                report = save(NEW, target, limit)
            except KeyboardInterrupt:
                assert held(target) in (expected(OLD), expected(NEW))
                report = None
        if report is not None:
            break
        report = save(OLD, target, limit)
        assert names(target) - {"part"} == set(report.files)
    assert at or name == "replace"


def test_what_reads_back_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    bridge.save(OLD, tmp_path / "good", "** -> **", max_shard_size=MANY, verify=True)
    assert held(tmp_path / "good") == expected(OLD)
    real = os.pread

    def faulty(descriptor: int, nbytes: int, offset: int) -> bytes:
        raw = real(descriptor, nbytes, offset)
        return raw if offset == 0 else raw[:-1] + bytes([raw[-1] ^ 1])

    monkeypatch.setattr(os, "pread", faulty)
    with pytest.raises(bridge.SaveError) as caught:
        bridge.save(NEW, tmp_path / "good", "** -> **", overwrite=True, verify=True)
    assert str(caught.value).startswith("'model.safetensors' does not read back as it was written, near byte ")
    monkeypatch.undo()
    assert held(tmp_path / "good") == expected(OLD)
