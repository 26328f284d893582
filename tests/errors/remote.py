"""Files behind URLs: servers that answer something else, and stores that fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from safetensors.numpy import save

import bridge
from bridge.source import http, retry
from bridge.source.ranged import Scattered, check_range
from bridge.source.remote import RemoteFile
from tests.errors.situations import situation
from tests.hub.clients import talking
from tests.hub.server import Fault, Hub

LATE = {"first": np.zeros(10_000, np.float32), "last": np.arange(5, dtype=np.float32)}
RANGE = {"Content-Range": "bytes 10-19/100"}


def _late(request: Any) -> bool:
    return bool(request.range and request.range[0])


def _read(hub: Hub) -> None:
    with bridge.open(f"{hub.web_url}/x.safetensors") as ckpt:
        ckpt["last"]


def _served(name: str, fault: Fault, *, late: bool = False, until: str = "") -> None:
    """A web server that fails: with every request, or with those for what does not stand at the front."""

    @situation(f"https: {name}", until=until)
    def _(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(http, "READ_SECONDS", 0.1)
        with talking(patch, Path("cache")) as hub:
            hub.web = {"/x.safetensors": save(LATE)}
            hub.fault = lambda request: fault if _late(request) or not late else None
            _read(hub)


_served("not there", Fault(status=404))
_served("without credentials", Fault(status=403))
_served("in circles", Fault(status=302, headers={"Location": "/x.safetensors"}))
_served("asked much too often", Fault(status=429, headers={"Retry-After": "300"}))
_served("a server that falls silent", Fault(stall=20), late=True)
_served("a lost connection", Fault(after=7), until="ClientPayloadError: ")
_served("ranges that it ignores", Fault(whole=True), late=True)


@situation("store: a URL that has no parts")
def _(patch: pytest.MonkeyPatch) -> None:
    bridge.open("s3://user:secret@[::1/x.safetensors?token=secret")


@situation("https: no URL")
def _(patch: pytest.MonkeyPatch) -> None:
    bridge.open("http:///x.safetensors")


def _answer(name: str, status: int, headers: dict[str, str], start: int = 10) -> None:
    @situation(f"https: an answer {name}")
    def _(patch: pytest.MonkeyPatch) -> None:
        check_range("https://example.com/x.safetensors", status, headers, start, 20, 100 if start else None)


_answer("that says nothing is there", 410, {})
_answer("that refuses", 401, {})
_answer("of another kind", 418, {})
_answer("that is compressed", 206, {"Content-Encoding": "gzip"})
_answer("without a range", 206, {})
_answer("of another range", 206, {"Content-Range": "bytes 0-9/100"})
_answer("of another length", 206, {"Content-Range": "bytes 10-19/99"})
_answer("beyond the end", 416, {})
_answer("that is whole", 200, {"Content-Length": "100"})
_answer("without a length", 206, {"Content-Range": "bytes 0-19/*"}, start=0)


@situation("https: more than was asked for")
def _(patch: pytest.MonkeyPatch) -> None:
    Scattered([memoryview(bytearray(3))], "https://example.com/x.safetensors").write(b"abcd")


@contextmanager
def stored(patch: pytest.MonkeyPatch) -> Iterator[str]:
    """A file in fsspec's store in memory."""
    patch.setattr(retry, "WAITS", ())
    fs = fsspec.filesystem("memory")
    fs.pipe_file("/texts/x.safetensors", save(LATE))
    try:
        yield "memory://texts/x.safetensors"
    finally:
        patch.undo()
        fs.rm("/texts", recursive=True)


Scene = Callable[[str, pytest.MonkeyPatch], Any]


def scene(name: str) -> Callable[[Scene], Scene]:
    """A situation with a file in a store."""

    def register(play: Scene) -> Scene:
        @situation(f"store: {name}")
        def _(patch: pytest.MonkeyPatch) -> None:
            with stored(patch) as url:
                play(url, patch)

        return play

    return register


def _failing(name: str, error: Exception) -> None:
    @scene(name)
    def _(url: str, patch: pytest.MonkeyPatch) -> None:
        def fail(*_: Any, **__: Any) -> bytes:
            raise error

        patch.setattr(MemoryFileSystem, "cat_file", fail)
        bridge.open(url)


_failing("a library that is missing", ImportError("Install s3fs to access S3"))
_failing("a file that is gone", FileNotFoundError())
_failing("without credentials", PermissionError("403"))
_failing("an argument that it does not take", ValueError("endpoint"))
_failing("a connection that is lost", ConnectionResetError("reset"))
_failing("an error without words", TimeoutError())


@situation("store: of a kind that nobody knows", until="cannot be opened: ")
def _(patch: pytest.MonkeyPatch) -> None:
    bridge.open("nosuch://repo/x.safetensors")


@scene("a name that it may not take to the letter")
def _(url: str, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MemoryFileSystem, "protocol", "other")
    index = b'{"weight_map": {"last": "%2e%2e/x.safetensors"}}'
    fsspec.filesystem("memory").pipe_file("/texts/model.safetensors.index.json", index)
    bridge.open("memory://texts")


@scene("no length")
def _(url: str, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MemoryFileSystem, "info", lambda *_, **__: {"size": None})
    bridge.open(url)


@scene("ranges that it ignores")
def _(url: str, patch: pytest.MonkeyPatch) -> None:
    whole = MemoryFileSystem.cat_file
    with bridge.open(url) as ckpt:
        patch.setattr(MemoryFileSystem, "cat_file", lambda fs, path, start=None, end=None: whole(fs, path))
        ckpt["last"]


@scene("a file that is closed")
def _(url: str, patch: pytest.MonkeyPatch) -> None:
    file = RemoteFile(fsspec.filesystem("memory"), "/texts/x.safetensors", name=url)
    file.close()
    file.readinto([memoryview(bytearray(1))], 0)


@scene("a file that is cut off")
def _(url: str, patch: pytest.MonkeyPatch) -> None:
    file = RemoteFile(fsspec.filesystem("memory"), "/texts/x.safetensors", name=url)
    file.readinto([memoryview(bytearray(1))], file.nbytes)
