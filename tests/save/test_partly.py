"""Models of which a checkpoint had a part, and back: layers to come go under the rule's names, padding is told of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file

import bridge
from tests.load.test_partly import ALLOW, LIKE, RULE, STORED, padded, stack
from tests.save.files import write

PADDING = [("embed[10:12]", "no key holds this part of the leaf")]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "x.safetensors", STORED)


@pytest.fixture
def model(source: Path) -> Any:
    """The loaded model, with other values in what no key had filled."""
    made = bridge.load(source, LIKE, RULE, allow_missing=ALLOW)
    return {"l": {"w": made["l"]["w"].at[3:].set(77)}, "embed": made["embed"].at[10:].set(55)}


def check(path: Path, dtype: Any = np.float32) -> None:
    found = load_file(path)
    assert sorted(found) == ["emb", *(f"l.{n}.w" for n in range(5))]
    assert found["emb"].tobytes() == padded(0, dtype)[:10].tobytes()
    for n in range(5):
        assert found[f"l.{n}.w"].tobytes() == stack(77, dtype)[n].tobytes()


def test_by_a_plan_its_rules_and_its_json(source: Path, model: Any, tmp_path: Path):
    plan = bridge.plan(source, LIKE, RULE, allow_missing=ALLOW)
    for rules in (plan, plan.rules, bridge.Plan.from_json(plan.to_json()), ["l.{i}.w -> l.w", RULE]):
        report = bridge.save(model, tmp_path / "out.safetensors", rules, overwrite=True)
        assert list(report.left_out) == PADDING
        check(tmp_path / "out.safetensors")


def test_with_a_base(source: Path, model: Any, tmp_path: Path):
    for rules in (bridge.plan(source, LIKE, RULE, allow_missing=ALLOW), [RULE]):
        report = bridge.save(model, tmp_path / "out.safetensors", rules, base=source, overwrite=True)
        assert list(report.left_out) == PADDING
        assert report.remarks == (f"2 keys are not in '{source}': 'l.3.w', 'l.4.w'",)
        check(tmp_path / "out.safetensors")


def test_layers_to_come_have_the_dtype_of_those_that_were_read(tmp_path: Path, model: Any):
    source = write(tmp_path / "h.safetensors", {key: array.astype(ml_dtypes.bfloat16) for key, array in STORED.items()})
    plan = bridge.plan(source, LIKE, RULE, allow_missing=ALLOW)
    bridge.save(model, tmp_path / "out.safetensors", plan)
    check(tmp_path / "out.safetensors", ml_dtypes.bfloat16)
    bridge.save(model, tmp_path / "own.safetensors", plan, dtype="model")
    check(tmp_path / "own.safetensors")


def test_what_is_left_out_is_not_told_of_twice(source: Path, model: Any, tmp_path: Path):
    plan = bridge.plan(source, LIKE, RULE, allow_missing=ALLOW)
    report = bridge.save(model, tmp_path / "out.safetensors", plan, leave_out=["embed"])
    assert [name for name, _ in report.left_out] == ["embed"]
    assert sorted(load_file(tmp_path / "out.safetensors")) == [f"l.{n}.w" for n in range(5)]


@pytest.mark.by_plan_alone("a rule that found no key is none of the plan's")
def test_a_list_with_layers_to_come_and_a_new_head(tmp_path: Path):
    source = write(tmp_path / "y.safetensors", {f"model.layers.{n}.w": STORED[f"l.{n}.w"] for n in range(3)})
    like = {"h": [{"w": jnp.full(2, float(n))} for n in range(5)], "head": jnp.ones(2), "other": jnp.zeros(1)}
    rules = ["model.layers.** -> h.**", "lm_head.weight -> head"]
    plan = bridge.plan(source, like, rules, allow_missing=["h.*.w", "head", "other"])
    bridge.save(bridge.load(source, like, plan), tmp_path / "out.safetensors", plan)
    found = load_file(tmp_path / "out.safetensors")
    assert sorted(found) == ["lm_head.weight", *(f"model.layers.{n}.w" for n in range(5)), "other"]
    assert [found[f"model.layers.{n}.w"].tolist() for n in (3, 4)] == [[3, 3], [4, 4]]


def test_a_place_that_no_rule_names_is_still_an_error_by_rules_alone(tmp_path: Path):
    with pytest.raises(bridge.PlanError) as caught:
        bridge.save({"s": np.zeros((3, 2), np.float32)}, tmp_path / "out.safetensors", "s [...] -> s [n[1] ...]")
    assert caught.value.missing == ("s[0]", "s[2]")


@pytest.mark.by_plan_alone("by rules alone a place without a key is an error")
def test_by_the_plan_that_kept_it_such_a_place_is_told_of(tmp_path: Path):
    like = {"s": jnp.zeros((3, 2))}
    source = write(tmp_path / "y.safetensors", {"s": np.ones(2, np.float32)})
    plan = bridge.plan(source, like, "s [...] -> s [n[1] ...]", allow_missing="s")
    report = bridge.save(bridge.load(source, like, plan), tmp_path / "out.safetensors", plan)
    assert [name for name, _ in report.left_out] == ["s[0]", "s[2]"]
    assert load_file(tmp_path / "out.safetensors")["s"].tolist() == [1, 1]
