"""The converted form: what cannot be converted, what is not converted, and records that are damaged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bridge
from bridge.converted import MARK
from bridge.target.existing import BESIDE
from tests.converted.test_damage import DAMAGES, LIKE, RULES, TENSORS, changed
from tests.errors.reading import INDEX, A, good
from tests.errors.situations import situation
from tests.save.files import write


def converted() -> Path:
    source = write(Path("source/model.safetensors"), TENSORS)
    bridge.convert(source, "converted", LIKE, RULES)
    return Path("converted")


def _damaged(damage: str) -> Callable[[pytest.MonkeyPatch], Any]:
    def provoke(patch: pytest.MonkeyPatch) -> None:
        changed(converted(), DAMAGES[damage])
        bridge.revert("converted", "back")

    return provoke


for _damage in DAMAGES:
    situation(f"record: {_damage}")(_damaged(_damage))


@situation("convert: to one file")
def _(patch: pytest.MonkeyPatch) -> None:
    bridge.convert(good(), "y.safetensors")


@situation("convert: what is converted already")
def _(patch: pytest.MonkeyPatch) -> None:
    bridge.convert(good(), "converted")
    bridge.convert("converted", "again")


@situation("load: what was converted by other rules")
def _(patch: pytest.MonkeyPatch) -> None:
    bridge.load(converted(), LIKE, ["y.{l} -> w"])


@situation("load: what says it is converted, and not by what")
def _(patch: pytest.MonkeyPatch) -> None:
    from tests.craft import checkpoint

    Path("x.safetensors").write_bytes(checkpoint({"a": A}, {MARK: "1"}))
    bridge.load("x.safetensors", None, "b -> a")


@situation("load: what says it is converted, and is not")
def _(patch: pytest.MonkeyPatch) -> None:
    from tests.craft import checkpoint

    Path("x.safetensors").write_bytes(checkpoint({"a": A}, {MARK: "1", BESIDE: '["bridge.json", "bridge.original"]'}))
    bridge.load("x.safetensors", None, "b -> a")


@situation("record: of an absurd length")
def _(patch: pytest.MonkeyPatch) -> None:
    with (converted() / "bridge.json").open("wb") as f:
        f.truncate(10**12)
    bridge.revert("converted", "back")


@situation("revert: a header that is none")
def _(patch: pytest.MonkeyPatch) -> None:
    changed(
        converted(), lambda record: record["files"][0].update(header=record["files"][0]["header"].replace("F32", "F7"))
    )
    bridge.revert("converted", "back")


@situation("revert: what was not converted")
def _(patch: pytest.MonkeyPatch) -> None:
    bridge.revert(good(), "back")


@situation("revert: several files to one")
def _(patch: pytest.MonkeyPatch) -> None:
    for name, key in (("a", "a"), ("b", "b")):
        write(Path(f"source/{name}.safetensors"), {key: A})
    Path("source", INDEX).write_text(json.dumps({"weight_map": {"a": "a.safetensors", "b": "b.safetensors"}}))
    bridge.convert("source", "converted")
    bridge.revert("converted", "y.safetensors")


@situation("revert: beside a file of another conversion")
def _(patch: pytest.MonkeyPatch) -> None:
    converted()
    good("converted/y.safetensors")
    Path("converted", INDEX).write_text(json.dumps({"weight_map": {"w": "model.safetensors", "a": "y.safetensors"}}))
    bridge.revert("converted", "back")


@situation("revert: a key that nothing holds any more")
def _(patch: pytest.MonkeyPatch) -> None:
    converted()
    write(Path("empty.safetensors"), {"other": np.zeros(1, np.float32)})
    Path("empty.safetensors").replace("converted/bridge.original")
    bridge.revert("converted", "back")
