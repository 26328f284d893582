"""Cold files are noticed, on systems that say so."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.source.bytes import LocalFile
from bridge.stream.direct import Read
from bridge.stream.jobs import is_cold


class Files:
    def __init__(self, source: object):
        self.source = source

    def byte_source(self, file: str) -> object:
        return self.source


def jobs(count: int) -> list[Read]:
    return [Read("data", n * 1000, "key", [("leaf", 0, 1000)], 1000) for n in range(count)]


def test_a_file_just_written_is_in_memory(tmp_path: Path):
    path = tmp_path / "data"
    path.write_bytes(bytes(100_000))
    source = LocalFile(path)
    assert source.resident(0)
    assert source.resident(99_999)
    assert not is_cold(jobs(100), Files(source))


@pytest.mark.parametrize(("resident", "cold"), [(0, True), (40_000, True), (60_000, False), (100_000, False)])
def test_most_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resident: int, cold: bool):
    path = tmp_path / "data"
    path.write_bytes(bytes(100_000))
    monkeypatch.setattr(LocalFile, "resident", lambda self, offset: offset < resident)
    assert is_cold(jobs(100), Files(LocalFile(path))) is cold
    assert not is_cold([], Files(LocalFile(path)))


def test_what_is_no_local_file_is_never_called_cold():
    assert not is_cold(jobs(3), Files(object()))
