"""Files that cannot be read, or not as what they claim to be."""

from __future__ import annotations

import errno
import mmap
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bridge
from bridge._dtypes import dtype_name
from bridge.source import tensor
from tests.attacks.test_header import ABUSES, Abuse
from tests.craft import checkpoint, craft, entry, ours
from tests.errors.situations import situation
from tests.stream.views import Made

INDEX = "model.safetensors.index.json"
A = np.arange(3, dtype=np.float32)


def good(name: str = "x.safetensors", key: str = "a") -> str:
    Path(name).write_bytes(checkpoint({key: A}))
    return name


def failing(patch: pytest.MonkeyPatch, where: Any, name: str, number: int) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    patch.setattr(where, name, fail)


# ---- one file


def _file(content: bytes) -> Callable[[pytest.MonkeyPatch], Any]:
    def provoke(patch: pytest.MonkeyPatch) -> None:
        Path("x.safetensors").write_bytes(content)
        ours(Path("x.safetensors"))

    return provoke


def _abuse(abuse: Abuse) -> None:
    situation(f"header: {abuse.name}")(_file(abuse.content))


@situation("file: a header of more than 100 MB")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("bridge.format.header.MAX_HEADER_NBYTES", 10)
    ours(Path(good()))


@situation("file: a link to nothing")
def _(patch: pytest.MonkeyPatch) -> None:
    Path("x.safetensors").symlink_to("gone.safetensors")
    bridge.open("x.safetensors")


for _each in ABUSES:
    _abuse(_each)
for _name, _start in {
    "a web page": b"<!DOCTYPE html>",
    "JSON": b'{"error": "gated"}',
    "plain text": b"Access to this model is restricted.",
    "zeros": bytes(50),
}.items():
    situation(f"header: {_name}")(_file(_start + bytes(100)))


@situation("file: not there")
def _(patch: pytest.MonkeyPatch) -> None:
    Path("sub").mkdir()
    os.symlink("gone", "x.safetensors")
    bridge.open("x.safetensors")


@situation("source: not there")
def _(patch: pytest.MonkeyPatch) -> None:
    bridge.open("gone.safetensors")


@situation("source: no path")
def _(patch: pytest.MonkeyPatch) -> None:
    bridge.open(3)  # pyright: ignore[reportArgumentType]


@situation("source: a file of torch.save that is empty")
def _(patch: pytest.MonkeyPatch) -> None:
    Path("model.bin").write_bytes(b"")
    bridge.open("model.bin")


@situation("source: an index by its name")
def _(patch: pytest.MonkeyPatch) -> None:
    Path(INDEX).write_text("{}")
    bridge.open(INDEX)


@situation("source: an empty list")
def _(patch: pytest.MonkeyPatch) -> None:
    bridge.open([])


@situation("source: a list with a file twice")
def _(patch: pytest.MonkeyPatch) -> None:
    bridge.open([good(), good()])


@situation("source: a list of files that share a key")
def _(patch: pytest.MonkeyPatch) -> None:
    bridge.open([good(), good("y.safetensors")])


@situation("file: a named pipe")
def _(patch: pytest.MonkeyPatch) -> None:
    os.mkfifo("x.safetensors")
    bridge.open("x.safetensors")


@situation("file: a socket")
def _(patch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("x.safetensors")
        bridge.open("x.safetensors")


@situation("file: a device")
def _(patch: pytest.MonkeyPatch) -> None:
    os.symlink("/dev/null", "x.safetensors")
    bridge.open("x.safetensors")


@situation("file: permission denied")
def _(patch: pytest.MonkeyPatch) -> None:
    good()
    failing(patch, os, "open", errno.EACCES)
    bridge.open("x.safetensors")


@situation("file: too many open files")
def _(patch: pytest.MonkeyPatch) -> None:
    good()
    failing(patch, os, "open", errno.EMFILE)
    bridge.open("x.safetensors")


@situation("file: a name that no file can have")
def _(patch: pytest.MonkeyPatch) -> None:
    bridge.open("x\0.safetensors")


@situation("read: an error of the disk")
def _(patch: pytest.MonkeyPatch) -> None:
    with bridge.open(good()) as ckpt:
        failing(patch, os, "preadv", errno.EIO)
        ckpt["a"]


@situation("read: an error of the disk in a load")
def _(patch: pytest.MonkeyPatch) -> None:
    with bridge.open(good()) as ckpt:
        failing(patch, os, "preadv", errno.EIO)
        bridge.load(ckpt, None)


@situation("read: the file ends early")
def _(patch: pytest.MonkeyPatch) -> None:
    with bridge.open(good()) as ckpt:
        patch.setattr(os, "preadv", lambda *_: 0)
        ckpt["a"]


@situation("read: the file was cut")
def _(patch: pytest.MonkeyPatch) -> None:
    with bridge.open(good()) as ckpt:
        os.truncate("x.safetensors", 70)
        ckpt["a"]


@situation("read: the file was rewritten")
def _(patch: pytest.MonkeyPatch) -> None:
    with bridge.open(good()) as ckpt:
        os.utime("x.safetensors", ns=(0, 0))
        ckpt["a"]


@situation("read: the checkpoint is closed")
def _(patch: pytest.MonkeyPatch) -> None:
    bridge.open(good()).close()
    ckpt = bridge.open("x.safetensors")
    ckpt.close()
    ckpt["a"]


@situation("read: the file is closed")
def _(patch: pytest.MonkeyPatch) -> None:
    with bridge.open(good()) as ckpt:
        source = ckpt.byte_source("x.safetensors")
        source.close()
        source.readinto([], 0)


@situation("read: an unknown key")
def _(patch: pytest.MonkeyPatch) -> None:
    with bridge.open(good(key="layers.0.weight")) as ckpt:
        ckpt["layers.0.weigth"]


@situation("read: an unknown key like no other")
def _(patch: pytest.MonkeyPatch) -> None:
    with bridge.open(good()) as ckpt:
        ckpt["head"]


@situation("read: values in three quarters of a byte")
def _(patch: pytest.MonkeyPatch) -> None:
    Path("x.safetensors").write_bytes(craft({"a": entry("F6_E2M3", [4], 0, 3)}, bytes(3)))
    bridge.open("x.safetensors")["a"]


@situation("read: more memory than there is")
def _(patch: pytest.MonkeyPatch) -> None:
    def full(_nbytes: int) -> None:
        raise MemoryError

    patch.setattr(tensor, "_empty", full)
    bridge.open(good())["a"]


def computed() -> Any:
    """A checkpoint of one key, which is computed."""
    made = Made()
    made.scaled("w", (4, 6), (2, 2), np.dtype("f4"))
    return made.open(Path())


@situation("read: more memory than there is, for a computed key")
def _(patch: pytest.MonkeyPatch) -> None:
    def full(_nbytes: int) -> None:
        raise MemoryError

    patch.setattr(tensor, "_empty", full)
    computed()["w"]


@situation("read: a computed key, of whose parts one is cut off")
def _(patch: pytest.MonkeyPatch) -> None:
    ckpt = computed()
    os.truncate("b.safetensors", 20)
    ckpt["w"]


@situation("read: a shape that numpy cannot hold", until="cannot hold:")
def _(patch: pytest.MonkeyPatch) -> None:
    Path("x.safetensors").write_bytes(craft({"a": entry("F32", [2**62, 0], 0, 0)}))
    bridge.open("x.safetensors")["a"]


@situation("header: more memory than there is")
def _(patch: pytest.MonkeyPatch) -> None:
    class Full:
        @staticmethod
        def decode(_text: str) -> None:
            raise MemoryError

    patch.setattr("bridge.format.strict_json._DECODER", Full)
    Path("x.safetensors").write_bytes(craft("{ }"))
    bridge.open("x.safetensors")


@situation("dtype: none of the format's")
def _(patch: pytest.MonkeyPatch) -> None:
    dtype_name(np.dtype("M8[s]"))


@situation("map: no memory for it")
def _(patch: pytest.MonkeyPatch) -> None:
    bridge.convert(good(), "converted")
    failing(patch, mmap, "mmap", errno.ENOMEM)
    bridge.load("converted", None)
