"""What asks for more than there is: by a rule, a shape, a config, a bound on memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bridge
import bridge.models
from tests.craft import craft, entry
from tests.errors.models import DECODER
from tests.errors.planning import spec
from tests.errors.reading import A, good
from tests.errors.situations import situation
from tests.save.files import write


def _rule(name: str, text: str) -> None:
    @situation(f"rule: {name}")
    def _(patch: pytest.MonkeyPatch) -> None:
        bridge.Rule(text)


_rule("a name that fits in too many ways", "{a|aa}" * 12 + ".w -> x")
_rule("choices of too many combinations", f"{'.'.join(['{a|b}'] * 14)} -> {'.'.join(['{a|b}'] * 14)}")
_rule("a sum of too many terms", " + ".join("k" for _ in range(101)) + " -> x")
_rule("an error in a text of thousands of characters", "a" * 3000 + " -> b ; x" + "y" * 3000)


@situation("rules.toml: too large")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("bridge.rules.toml._MOST_NBYTES", 3)
    Path("rules.toml").write_text("rules = []")
    bridge.load_rules("rules.toml")


@situation("rules.toml: a number of thousands of digits", until="is not TOML:")
def _(patch: pytest.MonkeyPatch) -> None:
    Path("rules.toml").write_text(f"rules = [{'9' * 5000}]")
    bridge.load_rules("rules.toml")


@situation("plan: leaves of a tensor without elements")
def _(patch: pytest.MonkeyPatch) -> None:
    Path("x.safetensors").write_bytes(craft({"w": entry("F32", [2**40, 0], 0, 0)}))
    bridge.plan("x.safetensors", None, "w [l o] -> layers.{l}.w [o]")


@situation("plan: a leaf of more elements than any array has")
def _(patch: pytest.MonkeyPatch) -> None:
    bridge.plan(good(), {"a": spec(2**31, 2**31)})


@situation("load: a leaf in more parts than can be checked")
def _(patch: pytest.MonkeyPatch) -> None:
    bridge.load(good(), {"a": spec(2**31)}, "a [v] -> a [v[:6:2]]")


@situation("load: a key in more parts than can be checked")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("bridge.mapping.cover.MOST_CELLS", 2)
    write(Path("x.safetensors"), {"a": np.zeros((4, 4), np.float32)})
    bridge.load("x.safetensors", {"b": spec(2, 2)}, "a [v[1:3] d[1:3]] -> b [v d]")


@situation("load: a stack of which nearly all is missing")
def _(patch: pytest.MonkeyPatch) -> None:
    write(Path("x.safetensors"), {f"l.{n}.w": A for n in (0, 2)})
    bridge.load("x.safetensors", {"l": {"w": spec(2**31, 3)}})


@situation("load: so little memory that it never ends")
def _(patch: pytest.MonkeyPatch) -> None:
    write(Path("x.safetensors"), {"a": np.zeros((1000, 1000), np.float32)})
    bridge.load("x.safetensors", {"a": spec(1000, 1000)}, max_host_bytes=1)


def _config(name: str, **fields: Any) -> None:
    @situation(f"models: {name}")
    def _(patch: pytest.MonkeyPatch) -> None:
        write(Path("m/model.safetensors"), {"a": A})
        Path("m/config.json").write_text(json.dumps({"model_type": "llama", **DECODER, **fields}))
        bridge.models.from_pretrained("m")


_config("a number that JAX has no room for", max_position_embeddings=2**31)
_config("a config larger than its checkpoint", num_hidden_layers=2**31)


def _overflow(name: str, value: float, like: Any, rules: Any = None) -> None:
    @situation(f"load: {name}")
    def _(patch: pytest.MonkeyPatch) -> None:
        write(Path("x.safetensors"), {"a": np.full(3, value, np.float32)})
        bridge.load("x.safetensors", like, rules)


_overflow("a float that becomes infinite", 70000, {"a": spec(3, dtype=np.float16)})
_overflow("a float that a scale makes infinite", 1e30, {"a": spec(3)}, "a -> a ; scale=1e30")


@situation("load: an integer that a scale makes too large")
def _(patch: pytest.MonkeyPatch) -> None:
    write(Path("x.safetensors"), {"a": np.array([3], np.int32)})
    bridge.load("x.safetensors", {"a": spec(1, dtype=np.int32)}, "a -> a ; scale=1e300")


@situation("load: a pattern of dtypes that matches nothing")
def _(patch: pytest.MonkeyPatch) -> None:
    bridge.load(good(), {"a": spec(3)}, dtype={"b.**": "bf16"})


@situation("save: a float that becomes infinite")
def _(patch: pytest.MonkeyPatch) -> None:
    bridge.save({"a": np.full(3, 70000, np.float32)}, "out", dtype="float16")


@situation("save: a target that no file system has characters for")
def _(patch: pytest.MonkeyPatch) -> None:
    bridge.save({"a": A}, "\ud800")
