"""Checkpoints that are no plain models: their reports say what they are, and what to do then leads to the model."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import bridge
from tests.errors.natures import AWQ, LOW, MODEL, NAMES, PACKED, SQUARE, each
from tests.save.files import write

VALUES = {f"{name}.weight": np.full((64, 64), n, "f4") for n, name in enumerate(NAMES)}


def told(source: Any, rules: Any = None, **options: Any) -> str:
    with pytest.raises(bridge.PlanError) as error:
        bridge.load(source, MODEL, rules, **options)
    return str(error.value)


@pytest.mark.parametrize("prefix", ["model", "state_dict", "module", "model.net", "_orig_mod"])
def test_the_rule_for_one_prefix_loads_the_model(tmp_path: Path, prefix: str) -> None:
    path = write(tmp_path / "x.safetensors", {f"{prefix}.{name}": value for name, value in VALUES.items()})
    first, second, *rest = told(path).split("\n")
    assert first.endswith(f": every key begins with '{prefix}.'")
    (rule,) = re.findall(r'take it away with the rule "(.*)"', second)
    assert not any("allow_unexpected" in line or "did you mean" in line for line in rest)
    found = bridge.load(path, MODEL, [rule])
    assert all(np.array_equal(found[name], value) for name, value in VALUES.items())


def test_rules_within_one_load_the_model(tmp_path: Path) -> None:
    tensors = {f"module.layers.{name[2:]}": value for name, value in VALUES.items()}
    path = write(tmp_path / "x.safetensors", tensors)
    rules = ["layers.{l}.** -> h.{l}.**"]
    assert 'put your rules into one, ("module.** -> **", […, "** -> **"])' in told(path, rules)
    found = bridge.load(path, MODEL, [("module.** -> **", [*rules, "** -> **"])])
    assert all(np.array_equal(found[name], value) for name, value in VALUES.items())


def test_one_key_outside_is_no_wrapping(tmp_path: Path) -> None:
    tensors = {f"module.{name}": value for name, value in VALUES.items()} | {"epoch": np.ones(1)}
    assert "every key" not in told(write(tmp_path / "x.safetensors", tensors))


def test_a_model_that_lacks_a_layer_is_called_nothing(tmp_path: Path) -> None:
    tensors = dict(list(VALUES.items())[:3])
    assert told(write(tmp_path / "x.safetensors", tensors)).split("\n")[0].endswith("dict (4 leaves)")


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        (PACKED, "is quantised (config.json says 'awq')"),
        (each({"weight._data": np.ones((64, 64), "i1"), "weight._scale": SQUARE}), "keys are those of Quanto"),
        (each({"weight": np.ones((64, 64), "i1"), "weight_scale": SQUARE}), "is quantised"),
        (each({"W_q": np.ones((64, 64), "u1"), "scale": SQUARE, "zero": SQUARE}), "keys are those of HQQ"),
        (each(LOW), "is an adapter (its keys say 'lora_A')"),
        (each(LOW) | {"head.weight": SQUARE}, "is an adapter"),
        (each({"lora_down.weight": SQUARE, "lora_up.weight": SQUARE, "alpha": np.ones(())}), "is an adapter"),
        (each({"hada_w1_a": SQUARE, "hada_w1_b": SQUARE}), "is an adapter"),
        (each({**LOW, "base_layer.weight": SQUARE}), "is a model with an adapter beside its weights"),
        ({f"{n}.momentum_buffer": SQUARE for n in range(3)}, "is the state of an optimizer"),
    ],
)
def test_the_first_line_says_what_it_is_and_no_other_speaks_of_its_keys(
    tmp_path: Path, tensors: dict[str, np.ndarray], said: str
) -> None:
    path = tmp_path / "x"
    path.mkdir()
    write(path / "model.safetensors", tensors)
    if tensors is PACKED:
        (path / "config.json").write_text(json.dumps(AWQ))
    first, _advice, *rest = told(path, quantized="keep").split("\n")
    assert said in first
    mine = [line for line in rest if "head.weight" not in line]
    assert not any("allow_unexpected" in line or "did you mean" in line or "the rule is" in line for line in mine)


def test_weights_that_are_read_again_are_those_that_are_meant(tmp_path: Path) -> None:
    """The advice for codes that were kept: leave it out."""
    path = tmp_path / "x"
    path.mkdir()
    write(path / "model.safetensors", PACKED)
    (path / "config.json").write_text(json.dumps(AWQ))
    assert "leave out quantized='keep' to read them as weights" in told(path, quantized="keep")
    assert "leave out dtype='checkpoint' to read them as weights" in told(path, dtype="checkpoint")
    assert all(isinstance(value, jax.Array) for value in bridge.load(path, MODEL).values())


def test_a_plan_that_prints_says_it_too(tmp_path: Path) -> None:
    path = write(tmp_path / "x.safetensors", {f"module.{name}": value for name, value in VALUES.items()})
    assert "every key begins with 'module.'" in str(bridge.plan(path, MODEL))
