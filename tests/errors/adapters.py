"""Adapters that are not merged, and adapters that are none."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import bridge
from bridge.source.memory import InMemory
from tests.adapters.write import adapter, peft
from tests.errors.situations import situation

FACTORS = peft({"m": (np.ones((4, 3), "f4"), np.ones((3, 4), "f4"))})
A, B = FACTORS
AT = "base_model.model.m"


def base() -> str:
    save_file({"m.weight": np.ones((3, 3), np.float32)}, "model.safetensors")
    return "model.safetensors"


def plan(*adapters: Any) -> bridge.Plan:
    return bridge.plan(base(), adapters=list(adapters))


def _config(name: str, **fields: Any) -> None:
    @situation(f"adapter config: {name}")
    def _(patch: pytest.MonkeyPatch) -> None:
        plan(adapter(Path("lora"), FACTORS, **fields))


_config("another kind", peft_type="LOHA")
_config("a field that is not known", use_something_new=True)
_config("a bias that is none", bias="some")
_config("a start that changed the base", init_lora_weights="pissa")
_config("a flag that is none", use_dora="yes")
_config("a rank that is none", r=0)
_config("an alpha that is none", lora_alpha="8")
_config("patterns that are none", rank_pattern=[4])
_config("a pattern without a rank", rank_pattern={"q_proj": "4"})
_config("an expression", alpha_pattern={"(a+)+$": 4})
_config("rows that are none", trainable_token_indices=[-1])
_config("a magnitude that is missing", use_dora=True)


def _tensors(name: str, tensors: Mapping[str, np.ndarray], **fields: Any) -> None:
    @situation(f"adapter: {name}")
    def _(patch: pytest.MonkeyPatch) -> None:
        plan(adapter(Path("lora"), tensors, **fields))


ONE = np.ones((4, 3), np.float32)
_tensors("a factor alone", {A: ONE})
_tensors("a tensor that is not known", {f"{AT}.lora_E": ONE})
_tensors("one thing twice", {**FACTORS, f"{AT}.lora_A.default.weight": ONE})
_tensors("of attention that PEFT wraps", {f"{AT}.base_layer.out_proj.lora_A.weight": ONE})
_tensors("rows that the config does not say", {f"{AT}.token_adapter.trainable_tokens_delta": ONE})


def _file(name: str, tensors: Mapping[str, np.ndarray], metadata: dict[str, str] | None = None) -> None:
    @situation(f"adapter file: {name}")
    def _(patch: pytest.MonkeyPatch) -> None:
        save_file(dict(tensors), "lora.safetensors", metadata)
        plan("lora.safetensors")


PAIR = {"unet.m.lora_A.weight": ONE, "unet.m.lora_B.weight": ONE.T.copy()}
_file("PEFT's, without a config", FACTORS)
_file("another kind", {"lora_unet_m.hada_w1_a": ONE})
_file("an alpha alone", {"lora_unet_m.alpha": np.array(1, np.float32)})
_file("a tensor that is not known", {"m.weight": ONE})
_file("an alpha that is no number", {**PAIR, "unet.m.alpha": ONE})
_file("a word of diffusers that is not known", PAIR, {"lora_adapter_metadata": json.dumps({"unet.new": 1})})


@situation("adapter config: no object")
def _(patch: pytest.MonkeyPatch) -> None:
    lora = adapter(Path("lora"), FACTORS)
    (lora / "adapter_config.json").write_text("[]")
    plan(lora)


@situation("adapter config: no JSON")
def _(patch: pytest.MonkeyPatch) -> None:
    lora = adapter(Path("lora"), FACTORS)
    (lora / "adapter_config.json").write_text('{"r": 4, "r": 8}')
    plan(lora)


@situation("adapter: a folder without one")
def _(patch: pytest.MonkeyPatch) -> None:
    Path("empty").mkdir()
    plan("empty")


@situation("adapter: several in a folder")
def _(patch: pytest.MonkeyPatch) -> None:
    Path("many").mkdir()
    for name in ("one", "two"):
        save_file(PAIR, f"many/{name}.safetensors")
    plan("many")


def _argument(name: str, value: Any) -> None:
    @situation(f"adapters: {name}")
    def _(patch: pytest.MonkeyPatch) -> None:
        bridge.plan(base(), adapters=value)


_argument("what is no list", 7)
_argument("what is no source", [7])
_argument("a weight that is no number", [("lora", float("inf"))])


@situation("adapters: of a converted form")
def _(patch: pytest.MonkeyPatch) -> None:
    bridge.convert(base(), "converted")
    bridge.load("converted", adapters=adapter(Path("lora"), FACTORS))


@situation("adapters: a plan that is carried out without them")
def _(patch: pytest.MonkeyPatch) -> None:
    lora = adapter(Path("lora"), FACTORS)
    bridge.load("model.safetensors", rules=plan(lora, (lora, -0.5)))


@situation("adapters: another base")
def _(patch: pytest.MonkeyPatch) -> None:
    factors = {f"h.{n}.up": (np.ones((4, 3), "f4"), np.ones((3, 4), "f4")) for n in range(3)}
    plan(adapter(Path("lora"), peft({**factors, "m": (np.ones((4, 5), "f4"), np.ones((3, 4), "f4"))}))).check()


@situation("adapters: a sum that float16 has no room for")
def _(patch: pytest.MonkeyPatch) -> None:
    save_file({"m.weight": np.full((3, 3), 60000, np.float16)}, "half.safetensors")
    lora = adapter(Path("lora"), {name: 50 * values for name, values in FACTORS.items()})
    bridge.load("half.safetensors", adapters=lora)


@situation("memory: a file that is shorter than it was")
def _(patch: pytest.MonkeyPatch) -> None:
    InMemory("far/lora.safetensors", bytearray(4)).readinto([memoryview(bytearray(8))], 0)
