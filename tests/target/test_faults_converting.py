"""As in `test_faults.py`, for `convert` and `revert`: every call to the disk fails once, at every place."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

import bridge
from bridge.target.explain import UNCHANGED
from tests.target.places import MANY, NEW, OLD, ONE, expected, held, many_files, names, nothing, save
from tests.target.test_faults import failing

CALLS: list[tuple[ModuleType, str, int]] = [
    (os, "posix_fallocate", errno.ENOSPC),
    (mmap, "mmap", errno.ENOMEM),
    (os, "open", errno.EACCES),
    (os, "mkdir", errno.EROFS),
    (os, "pwrite", errno.ENOSPC),
    (os, "fsync", errno.EIO),
    (os, "rename", errno.EACCES),
    (os, "unlink", errno.EACCES),
    (os, "preadv", errno.EIO),
]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    """The disk is not waited for: nothing here pulls its plug."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    save(NEW, folder / "many", MANY)
    bridge.convert(folder / "many", folder / "converted")
    return folder


DOINGS: dict[str, Callable[[Path, Path], object]] = {
    "convert": lambda sources, target: bridge.convert(sources / "many", target, overwrite=True),
    "revert": lambda sources, target: bridge.revert(sources / "converted", target, overwrite=True),
}


@pytest.mark.parametrize(("where", "name", "number"), CALLS, ids=[name for _, name, _ in CALLS])
@pytest.mark.parametrize("build", [nothing, many_files], ids=lambda build: build.__name__)
@pytest.mark.parametrize("doing", DOINGS)
def test_each_call_fails_once(
    tmp_path: Path, sources: Path, doing: str, build: Callable[[Path], None], where: ModuleType, name: str, number: int
):
    before = None if build is nothing else expected(OLD)
    at = 0
    while True:
        target = tmp_path / str(at) / "target"
        target.parent.mkdir()
        build(target)
        error = None
        with failing(where, name, number, at) as calls:
            try:
                DOINGS[doing](sources, target)
            except bridge.BridgeError as caught:
                error = caught
        now = held(target)
        assert now == expected(NEW) if error is None else now in (before, expected(NEW))
        if error is not None and UNCHANGED[0] in str(error):
            assert now == before
        report = save(OLD, target, ONE)
        assert held(target) == expected(OLD)
        assert names(target) == set(report.files)
        if len(calls) <= at:
            break
        at += 1
    assert at or name in ("posix_fallocate", "mmap", "mkdir", "unlink")
    assert held(sources / "many") == held(sources / "converted") == expected(NEW)
