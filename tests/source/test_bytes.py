"""Local files: the contract, and what the disk can do to us."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bridge import _errors
from bridge.source import ByteSource, LocalFile
from tests.errors.promised import text_of
from tests.source.contract import CONTENT, ByteSourceContract


class TestLocalFile(ByteSourceContract):
    def make(self, content: bytes, folder: Path) -> ByteSource:
        (folder / "file").write_bytes(content)
        return LocalFile(folder / "file", "it")


class TestLocalFileThatGivesItsDescriptorBack(ByteSourceContract):
    def make(self, content: bytes, folder: Path) -> ByteSource:
        (folder / "file").write_bytes(content)
        return LocalFile(folder / "file", "it", hold=False)


class TestLinkToLocalFile(ByteSourceContract):
    def make(self, content: bytes, folder: Path) -> ByteSource:
        (folder / "file").write_bytes(content)
        (folder / "link").symlink_to("file")
        return LocalFile(folder / "link", "it")


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("hold", [True, False])
def test_descriptors_are_given_back(hold: bool, tmp_path: Path):
    (tmp_path / "file").write_bytes(CONTENT)
    before = descriptors()
    source = LocalFile(tmp_path / "file", hold=hold)
    source.readinto([memoryview(bytearray(10))], 0)
    assert descriptors() == before + hold
    source.close()
    assert descriptors() == before
    source = LocalFile(tmp_path / "file", hold=hold)
    del source  # who forgets to close loses nothing
    assert descriptors() == before


def preadv_in_pieces(nbytes: int):
    whole = os.preadv

    def preadv(fd: int, buffers: Sequence[memoryview], offset: int) -> int:
        done = 0
        for buffer in buffers:
            part = buffer.cast("B")[: nbytes - done]
            done += whole(fd, [part], offset + done)
        return done

    return preadv


@pytest.mark.parametrize("piece", [1, 7, 1000])
def test_short_reads_are_continued(piece: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").write_bytes(CONTENT[:5000])
    source = LocalFile(tmp_path / "file")
    monkeypatch.setattr(os, "preadv", preadv_in_pieces(piece))
    parts = [bytearray(n) for n in (1, 0, 2000, 13, 2986)]
    source.readinto([memoryview(p) for p in parts], 0)
    assert b"".join(parts) == CONTENT[:5000]


def test_an_io_error_half_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").write_bytes(CONTENT)
    source = LocalFile(tmp_path / "file", "x.safetensors")

    def preadv(*_: Any) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "preadv", preadv)
    with pytest.raises(_errors.CheckpointError) as caught:
        source.readinto([memoryview(bytearray(10))], 42)
    assert str(caught.value) == (
        "'x.safetensors' cannot be read at byte 42: Input/output error. Check the disk and try again."
    )
    assert isinstance(caught.value.__cause__, OSError)


def test_reading_beyond_the_end_of_an_unchanged_file(tmp_path: Path):
    (tmp_path / "file").write_bytes(CONTENT)
    source = LocalFile(tmp_path / "file", "x.safetensors")
    with pytest.raises(_errors.CheckpointError) as caught:
        source.readinto([memoryview(bytearray(10))], 100_000)
    assert str(caught.value) == (
        text_of("store: a file that is cut off")
        .replace("'memory://texts/x.safetensors'", "'x.safetensors'")
        .replace("40,164", "100,003")
        .replace("40,165", "100,010")
    )


def test_a_name_by_default(tmp_path: Path):
    (tmp_path / "file").write_bytes(CONTENT)
    source = LocalFile(tmp_path / "file")
    assert source.name == str(tmp_path / "file")
    assert repr(source) == f"LocalFile({source.name!r}, nbytes=100003)"
