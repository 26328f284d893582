"""Folders, indices and checksums that are not as they should be."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bridge
from tests.attacks.index_cases import ABUSES
from tests.craft import checkpoint
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


@situation("folder: a pipeline's")
def _(patch: pytest.MonkeyPatch) -> None:
    for name in ("unet", "vae"):
        Path(name).mkdir()
        good(f"{name}/model.safetensors")
    bridge.open(".")


@situation("folder: a subfolder that is not there")
def _(patch: pytest.MonkeyPatch) -> None:
    Path("unet").mkdir()
    good("unet/model.safetensors")
    bridge.open(".", subfolder="unett")


@situation("folder: no subfolder at all")
def _(patch: pytest.MonkeyPatch) -> None:
    good()
    bridge.open(".", subfolder="unet")


@situation("index: a key that it leaves out, asked for")
def _(patch: pytest.MonkeyPatch) -> None:
    _left_out()["b"]


@situation("index: a key that it leaves out, missing")
def _(patch: pytest.MonkeyPatch) -> None:
    bridge.load(_left_out(), {"b": np.zeros(3, np.float32)})


def _left_out() -> bridge.Checkpoint:
    Path("m").mkdir()
    for name, key in (("x", "a"), ("y", "b")):
        good(f"m/{name}.safetensors", key)
    Path("m", INDEX).write_text(json.dumps({"weight_map": {"a": "x.safetensors"}}))
    Path("m/x.safetensors").write_bytes(checkpoint({"a": np.zeros(3, "f4"), "b": np.zeros(3, "f4")}))
    return bridge.open("m")


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


# ---- folders and names that are not the model's


@situation("folder: parts without an index")
def _(patch: pytest.MonkeyPatch) -> None:
    for number in (1, 2):
        good(f"model-0000{number}-of-00002.safetensors")
    bridge.open(".")


@situation("folder: a download that did not finish")
def _(patch: pytest.MonkeyPatch) -> None:
    Path("model.safetensors.incomplete").write_bytes(b"")
    bridge.open(".")


@situation("folder: weights for other libraries")
def _(patch: pytest.MonkeyPatch) -> None:
    for name in ("flax_model.msgpack", "tf_model.h5", "model-q4.gguf"):
        Path(name).write_bytes(b"")
    bridge.open(".")


@situation("folder: what a trainer keeps")
def _(patch: pytest.MonkeyPatch) -> None:
    for name in ("optimizer.pt", "scheduler.pt"):
        Path(name).write_bytes(b"")
    bridge.open(".")


@situation("folder: a repo's in the Hub's cache")
def _(patch: pytest.MonkeyPatch) -> None:
    Path("models--org--name/snapshots").mkdir(parents=True)
    bridge.open("models--org--name")


situation("source: a misspelt name")(lambda patch: bridge.open(f"./{good()[:-1]}"))
situation("source: a page of the Hub")(lambda patch: bridge.open("https://huggingface.co/org/name/blob/main/a.bin"))
situation("source: a model")(lambda patch: bridge.load(np.zeros(99)))  # type: ignore[arg-type]
