"""Checkpoints that are something else than a plain model: the first line of their reports says what."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import bridge
from tests.errors.situations import situation
from tests.save.files import write
from tests.torchfile.craft import archive, dict_of, number

NAMES = [f"h.{n}.{part}" for n in range(2) for part in ("q", "k")]
MODEL = {f"{name}.weight": jax.ShapeDtypeStruct((64, 64), "float32") for name in NAMES}
SQUARE, CODES, SCALE = np.ones((64, 64), "f4"), np.ones((64, 64), "i1"), np.ones((64, 1), "f4")


def each(parts: Mapping[str, np.ndarray], before: str = "") -> dict[str, np.ndarray]:
    """The parts of every layer."""
    return {f"{before}{name}.{part}": value for name in NAMES for part, value in parts.items()}


def _load(
    name: str,
    tensors: dict[str, np.ndarray],
    rules: Any = None,
    *,
    config: dict[str, Any] | None = None,
    file: str = "model.safetensors",
    **options: Any,
) -> None:
    def provoke(patch: pytest.MonkeyPatch) -> None:
        Path("x").mkdir()
        write(Path("x") / file, tensors)
        if config is not None:
            Path("x/config.json").write_text(json.dumps(config))
        bridge.load("x", MODEL, rules, **options)

    situation(f"first line: {name}")(provoke)


AWQ = {"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 64, "zero_point": True}}
FOO = {"quantization_config": {"quant_method": "foo"}}
PACKED = each(
    {
        "qweight": np.ones((64, 8), "i4"),
        "qzeros": np.ones((1, 8), "i4"),
        "scales": np.ones((1, 64), "f2"),
    }
)
LOW = {"lora_A.weight": np.ones((8, 64), "f4"), "lora_B.weight": np.ones((64, 8), "f4")}

_load("codes that are kept", PACKED, config=AWQ, quantized="keep")
_load("codes as the checkpoint has them", PACKED, config=AWQ, dtype="checkpoint")
_load("a quantisation that nobody knows", each({"weight": CODES, "weight_scale": SCALE}), config=FOO, quantized="keep")
_load("codes without a config", each({"weight": CODES, "weight_scale": SCALE}))
_load("codes of a tool that is not read", each({"weight._data": CODES, "weight._scale": SCALE}))
_load("an adapter", each(LOW, "base_model.model."))
_load("an adapter beside its base", each({**LOW, "base_layer.weight": SQUARE}))
_load("the state of an optimizer", {f"state.{n}.{k}": SQUARE for n in range(3) for k in ("exp_avg", "step")})
_load("one prefix", {**each({"weight": SQUARE}, "model.net."), "model.net.a": SQUARE})
_load(
    "one prefix, and rules",
    {f"state_dict.layers.{name[2:]}.weight": SQUARE for name in NAMES},
    ["layers.{l}.** -> h.{l}.**"],
)
_load("a part", dict(list(each({"weight": SQUARE}).items())[:3]), file="model-00001-of-00003.safetensors")


@situation("first line: two parts of three")
def _(patch: pytest.MonkeyPatch) -> None:
    names = [f"model-0000{n}-of-00003.safetensors" for n in (1, 3)]
    for name, layer in zip(names, ("h.0.q", "h.0.k"), strict=True):
        write(Path(name), {f"{layer}.weight": SQUARE})
    bridge.load(names, MODEL)


@situation("first line: what an optimizer has saved")
def _(patch: pytest.MonkeyPatch) -> None:
    Path("optimizer.pt").write_bytes(archive(dict_of({"state": dict_of({}), "param_groups": number(1)})))
    bridge.open("optimizer.pt")
