"""Folders, indices and checksums that are not as they should be."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bridge
from tests.attacks.index_cases import ABUSES
from tests.errors.reading import INDEX, failing, good
from tests.errors.situations import situation


@situation("folder: empty")
def _(patch: pytest.MonkeyPatch) -> None:
    bridge.open(".")


@situation("folder: other files")
def _(patch: pytest.MonkeyPatch) -> None:
    Path("config.json").write_text("{}")
    bridge.open(".")


@situation("folder: several files of PyTorch's")
def _(patch: pytest.MonkeyPatch) -> None:
    Path("a.pt").write_text("")
    Path("b.pt").write_text("")
    bridge.open(".")


@situation("folder: an adapter alone")
def _(patch: pytest.MonkeyPatch) -> None:
    good("adapter_model.safetensors")
    bridge.open(".")


@situation("folder: several files and no index")
def _(patch: pytest.MonkeyPatch) -> None:
    good()
    good("y.safetensors")
    bridge.open(".")


@situation("folder: not the variant")
def _(patch: pytest.MonkeyPatch) -> None:
    good()
    bridge.open(".", variant="fp16")


@situation("folder: a subfolder that leaves it")
def _(patch: pytest.MonkeyPatch) -> None:
    bridge.open(".", subfolder="../..")


@situation("folder: a name that none can have")
def _(patch: pytest.MonkeyPatch) -> None:
    Path("m").mkdir()
    bridge.open("m", subfolder="a\0b")


@situation("folder: cannot be listed")
def _(patch: pytest.MonkeyPatch) -> None:
    failing(patch, os, "scandir", errno.EACCES)
    bridge.open(".")


def _index(raw: bytes) -> Callable[[pytest.MonkeyPatch], Any]:
    def provoke(patch: pytest.MonkeyPatch) -> None:
        good()
        good("y.safetensors", "b")
        Path(INDEX).write_bytes(raw)
        bridge.open(".")

    return provoke


_FILES = {
    "a key that no file holds": b'{"weight_map": {"c": "x.safetensors"}}',
    "a name that is of no file": b'{"weight_map": {"a": "z.safetensors"}}',
    "a name that is of a file without the key": b'{"weight_map": {"a": "y.safetensors"}}',
}
for _name, _raw in (ABUSES | _FILES).items():
    situation(f"index: {_name}")(_index(_raw))


@situation("index: too large")
def _(patch: pytest.MonkeyPatch) -> None:
    with Path(INDEX).open("wb") as f:
        f.truncate(10**12)
    bridge.open(".")


# ---- checksums


@situation("verify: nothing to check against")
def _(patch: pytest.MonkeyPatch) -> None:
    bridge.open(good(), verify=True)


@situation("verify: another file")
def _(patch: pytest.MonkeyPatch) -> None:
    good()
    Path("x.safetensors.sha256").write_text("0" * 64)
    bridge.open("x.safetensors", verify=True)


@situation("verify: a sidecar without a digest")
def _(patch: pytest.MonkeyPatch) -> None:
    good()
    Path("x.safetensors.sha256").write_text("none")
    bridge.open("x.safetensors", verify=True)
