"""What torch.save writes, or does not: files that are refused, and tensors that cannot be read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bridge
from bridge import CheckpointError
from bridge.source import LocalFile
from bridge.source.small import read_small
from bridge.torchfile import machine, read_torch_file
from tests.craft import checkpoint
from tests.errors.situations import situation
from tests.torchfile import craft
from tests.torchfile.hostile import Hostile
from tests.torchfile.hostile_files import HOSTILE, REFUSED

# Megabytes, or seconds while lines are traced. What they say, smaller files say here too.
_LARGE = (
    *("pickle costs: dicts with 2**40 paths", "pickle costs: too many opcodes", "pickle costs: a pickle of 25 MB"),
    *("pickle costs: a pickle that copies", "pickle costs: a compressed pickle"),
    "pickle costs: too many values kept",
)


def _file(case: Hostile) -> Callable[[pytest.MonkeyPatch], Any]:
    def provoke(patch: pytest.MonkeyPatch) -> None:
        Path("x.pth").write_bytes(case.content())
        read_torch_file(LocalFile("x.pth"), modules=case.modules).entries(case.root)

    return provoke


for _name, _case in HOSTILE.items():
    if _name not in _LARGE:
        situation(f"torch file, {_name}")(_file(_case))


@situation("torch file, pickle costs: too many opcodes")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(machine, "MAX_OPCODES", 20)
    _file(Hostile(lambda: craft.archive(b"N0" * 20), ""))(patch)


@situation("torch file, pickle costs: too many values kept")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(machine, "MAX_MEMO", 20)
    _file(Hostile(lambda: craft.archive(b"N" + b"\x94" * 21), ""))(patch)


@situation("torch file, pickle costs: a pickle that copies")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(machine, "FREE_COPIED_NBYTES", 0)
    pairs = craft.list_of(*(craft.tuple_of(craft.text(str(n)), craft.NONE) for n in range(9)))
    again = craft.name("collections", "OrderedDict") + b"h\0\x85R"
    _file(Hostile(lambda: craft.archive(pairs + b"q\0" + again * 20), ""))(patch)


def _tensor(value: bytes) -> Callable[[pytest.MonkeyPatch], Any]:
    def provoke(patch: pytest.MonkeyPatch) -> None:
        records = {"data/0": craft.DATA, "data/1": craft.DATA}
        Path("x.pth").write_bytes(craft.archive(craft.dict_of({"x": value}), records))
        raise CheckpointError(*read_torch_file(LocalFile("x.pth")).entries().refused["x"])

    return provoke


for _name, (_value, _) in REFUSED.items():
    situation(f"torch file, a tensor that cannot be: {_name}")(_tensor(_value))


# ---- as checkpoints


def _saved(value: bytes) -> str:
    Path("x.pth").write_bytes(craft.archive(value))
    return "x.pth"


_SPARSE = craft.call(craft.name("torch._utils", "_rebuild_sparse_tensor"), craft.NONE)


@situation("source: a root of safetensors")
def _(patch: pytest.MonkeyPatch) -> None:
    Path("x.safetensors").write_bytes(checkpoint({"a": np.zeros(2)}))
    bridge.open("x.safetensors", root="model_ema")


@situation("source: several dicts of tensors")
def _(patch: pytest.MonkeyPatch) -> None:
    tensors = craft.dict_of(craft.GOOD)
    bridge.open(_saved(craft.dict_of({"model": tensors, "model_ema": tensors})))


@situation("tensor: one that cannot be read")
def _(patch: pytest.MonkeyPatch) -> None:
    bridge.open(_saved(craft.dict_of({**craft.GOOD, "s": _SPARSE})))["s"]


@situation("tensor: one that cannot be read, among those that decide")
def _(patch: pytest.MonkeyPatch) -> None:
    ckpt = bridge.open(_saved(craft.dict_of({**craft.GOOD, "s": _SPARSE})))
    read_small(ckpt.specs, ["s"], ckpt.byte_source)


@situation("plan: a tensor that cannot be read")
def _(patch: pytest.MonkeyPatch) -> None:
    bridge.load(_saved(craft.dict_of({**craft.GOOD, "s": _SPARSE})), None)
