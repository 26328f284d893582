"""Files behind URLs: the contract, on fsspec's own memory file system, and what a store can do to us."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from bridge import _errors
from bridge.source import ByteSource, open_checkpoint, retry
from bridge.source.remote import RemoteFile
from tests.craft import checkpoint
from tests.errors.promised import text_of
from tests.source.contract import ByteSourceContract

A, B = np.arange(3, dtype=np.float32), np.arange(3, 6, dtype=np.float32)


class TestRemoteFile(ByteSourceContract):
    def make(self, content: bytes, folder: Path) -> ByteSource:
        fs = fsspec.filesystem("memory")
        fs.pipe_file("/contract/file", content)
        return RemoteFile(fs, "/contract/file", name="it")


@pytest.fixture
def store():
    fs = fsspec.filesystem("memory")
    fs.pipe_file("/repo/x.safetensors", checkpoint({"a": A}))
    fs.pipe_file("/repo/y.safetensors", checkpoint({"b": B}))
    fs.pipe_file("/repo/sub/model.safetensors", checkpoint({"b": B}))
    index = {"weight_map": {"a": "x.safetensors", "b": "y.safetensors"}}
    fs.pipe_file("/repo/model.safetensors.index.json", json.dumps(index).encode())
    yield fs
    fs.rm("/repo", recursive=True)


def refusal(source: str) -> str:
    with pytest.raises(_errors.CheckpointError) as caught:
        open_checkpoint(source)
    return str(caught.value)


def test_a_file(store: Any):
    with open_checkpoint("memory://repo/x.safetensors") as ckpt:
        assert ckpt.source == "memory://repo/x.safetensors"
        assert ckpt.files == ("x.safetensors",)
        assert ckpt["a"].tobytes() == A.tobytes()
        assert ckpt["a"].ctypes.data % 64 == 0


def test_a_folder_and_a_folder_in_it(store: Any):
    for url in ("memory://repo", "memory://repo/"):
        with open_checkpoint(url) as ckpt:
            assert ckpt.files == ("x.safetensors", "y.safetensors")
            assert ckpt["b"].tobytes() == B.tobytes()
            assert ckpt.source == "memory://repo/"
    with open_checkpoint("memory://repo", subfolder="sub") as ckpt:
        assert list(ckpt) == ["b"]


def test_what_is_not_there(store: Any):
    assert refusal("memory://repo/z.safetensors") == text_of("store: a file that is gone").replace(
        "'memory://texts/x.safetensors'", "'memory://repo/z.safetensors'"
    )
    assert refusal("memory://nowhere") == text_of("store: a file that is gone").replace(
        "'memory://texts/x.safetensors'", "'memory://nowhere/'"
    )


def test_an_unknown_protocol():
    assert refusal("nosuch://repo/x.safetensors") == (
        text_of("store: of a kind that nobody knows") + "Protocol not known: nosuch. Check the URL."
    )


def test_a_server_that_ignores_ranges(store: Any, monkeypatch: pytest.MonkeyPatch):
    whole, large = MemoryFileSystem.cat_file, checkpoint({"a": np.zeros(5000, np.float32), "b": B})
    store.pipe_file("/repo/large.safetensors", large)
    url = "memory://repo/large.safetensors"
    with open_checkpoint(url) as ckpt:
        monkeypatch.setattr(MemoryFileSystem, "cat_file", lambda fs, path, start=None, end=None: whole(fs, path))
        with pytest.raises(_errors.CheckpointError) as caught:
            ckpt["b"]
    assert str(caught.value) == (
        text_of("store: ranges that it ignores")
        .replace("key 'last'", "key 'b'")
        .replace("memory://texts/x.safetensors", url)
        .replace("40,164 bytes", f"{len(large):,} bytes")
        .replace("20 were", "12 were")
        .replace("byte 40,144", f"byte {len(large) - B.nbytes:,}")
    )


@pytest.fixture(autouse=True)
def hurry():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retry, "WAITS", (0.0, 0.0))
        yield


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PermissionError("403"), "may not be read at byte 0: 403. Check your credentials."),
        (ConnectionResetError("reset"), "cannot be read at byte 0: reset. Check the network and try again."),
        (TimeoutError(), "cannot be read at byte 0: TimeoutError. Check the network and try again."),
    ],
)
def test_a_store_that_fails(error: OSError, message: str, store: Any, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: Any, **__: Any) -> bytes:
        raise error

    monkeypatch.setattr(MemoryFileSystem, "cat_file", fail)
    assert refusal("memory://repo/x.safetensors") == f"'memory://repo/x.safetensors' {message}"


def test_a_store_that_does_not_know_lengths(store: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(MemoryFileSystem, "info", lambda *_, **__: {"size": None})
    assert refusal("memory://repo/x.safetensors") == (
        text_of("store: no length").replace("'memory://texts/x.safetensors'", "'memory://repo/x.safetensors'")
    )


def test_a_sidecar_in_the_store(store: Any):
    import hashlib

    with pytest.raises(_errors.CheckpointError, match="has nothing to be checked against"):
        open_checkpoint("memory://repo/x.safetensors", verify=True)
    store.pipe_file("/repo/x.safetensors.sha256", hashlib.sha256(checkpoint({"a": A})).hexdigest().encode())
    open_checkpoint("memory://repo/x.safetensors", verify=True).close()


def test_folders_that_have_weights_are_named(store: MemoryFileSystem):
    store.rm("/repo/x.safetensors")
    store.rm("/repo/y.safetensors")
    store.rm("/repo/model.safetensors.index.json")
    with pytest.raises(_errors.CheckpointError, match=r"these of its folders do: 'sub'\. Choose one"):
        open_checkpoint("memory://repo")
    assert list(open_checkpoint("memory://repo", subfolder="sub")) == ["b"]
