"""Rules that nest, and choices of the key side alone, on the way back: by the plan, and by the rules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
import pytest

import bridge
from tests.errors.promised import text_of
from tests.save.files import bits, finite, read, write

RULE = "{down|up}samplers.{s}.** -> resample.{s}.**"
LINEAR = {"weight": finite((3, 2)), "bias": finite((3,), seed=1)}
WHERE = {
    "the first": {f"downsamplers.0.{n}": v for n, v in LINEAR.items()},
    "the second": {f"upsamplers.0.{n}": v for n, v in LINEAR.items()},
    "each for another leaf": {"downsamplers.0.weight": LINEAR["weight"], "upsamplers.0.bias": LINEAR["bias"]},
}


def _like(*, stacked: bool) -> Any:
    def make(key: jax.Array) -> eqx.nn.Linear:
        return eqx.nn.Linear(2, 3, key=key)

    keys = jax.random.split(jax.random.key(0), 1)
    return {"resample": eqx.filter_vmap(make)(keys) if stacked else [make(keys[0])]}


@pytest.mark.parametrize("stacked", [False, True])
@pytest.mark.parametrize("where", WHERE)
def test_a_plan_writes_the_branch_that_was_read(tmp_path: Path, where: str, stacked: bool):
    source, like = write(tmp_path / "in.safetensors", WHERE[where]), _like(stacked=stacked)
    plan = bridge.plan(source, like, RULE)
    model = bridge.load(source, like, RULE)
    for n, one in enumerate((plan, bridge.Plan.from_json(plan.to_json()), bridge.plan(source, like, plan.rules))):
        assert one == plan
        bridge.save(model, tmp_path / f"{n}.safetensors", one)
        assert bridge.diff(tmp_path / f"{n}.safetensors", source).equal
    bridge.save(model, tmp_path / "concrete.safetensors", plan.rules)
    assert bridge.diff(tmp_path / "concrete.safetensors", source).equal


@pytest.mark.parametrize("stacked", [False, True])
def test_rules_alone_do_not_know_the_branch(tmp_path: Path, stacked: bool):
    with pytest.raises(bridge.PlanError) as caught:
        bridge.save(_like(stacked=stacked), tmp_path / "out", RULE)
    leaf = "resample.weight" if stacked else "resample.0.weight"
    assert str(caught.value) == (
        text_of("save: a choice of the key side alone")
        .replace("'resample.w'", f"'{leaf}'")
        .replace("'downsamplers.0.w'", "'downsamplers.0.weight'")
        .replace("'upsamplers.0.w'", "'upsamplers.0.weight'")
        .replace("'{down|up}samplers.0.** -> resample.**'", f"'{RULE}'")
    )
    assert not (tmp_path / "out").exists()


def test_the_advice_ends_in_a_right_file(tmp_path: Path):
    model = _like(stacked=True)
    bridge.save(model, tmp_path, ["upsamplers.{s}.** -> resample.{s}.**", f"{RULE} ; alt=true"])
    assert sorted(read(tmp_path)) == ["upsamplers.0.bias", "upsamplers.0.weight"]
    again = bridge.load(tmp_path, model, RULE)
    assert all(bits(a) == bits(b) for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(model), strict=True))


def test_a_rule_that_is_only_read_may_have_branches(tmp_path: Path):
    bridge.save({"x": LINEAR["bias"]}, tmp_path, ["a -> x", "{b|c} -> x ; alt=true"])
    assert read(tmp_path) == {"a": bits(LINEAR["bias"])}


@pytest.mark.parametrize("key", ["new.w", "old.w", "older.w"])
def test_another_spelling_is_read_and_not_written(tmp_path: Path, key: str):
    rules = ["new.w -> x", "{old|older}.w -> x ; alt=true"]
    source = write(tmp_path / "in.safetensors", {key: LINEAR["weight"]})
    like = {"x": jax.ShapeDtypeStruct((3, 2), np.float32)}
    plan = bridge.plan(source, like, rules)
    assert plan.ok
    assert plan.idle == (() if key == "new.w" else ("new.w -> x",))
    model = bridge.load(source, like, rules)
    bridge.save(model, tmp_path / "rules.safetensors", rules)
    assert read(tmp_path / "rules.safetensors") == {"new.w": bits(LINEAR["weight"])}
    bridge.save(model, tmp_path / "plan.safetensors", plan)
    assert read(tmp_path / "plan.safetensors") == {key: bits(LINEAR["weight"])}


NESTED = {
    "pairs": [
        ("enc.{b}.** -> blocks.{b}.**", ["res.{r}.** -> res.{r}.**", ("att.** -> att.**", ["q.** -> query.**"])])
    ],
    "a dict": {"enc.{b}.res.{r}.**": "blocks.{b}.res.{r}.**", "enc.{b}.att.q.**": "blocks.{b}.att.query.**"},
    "lines": "# blocks\nenc.{b}.res.{r}.** -> blocks.{b}.res.{r}.**\n\nenc.{b}.att.q.** -> blocks.{b}.att.query.**  # one\n",
}


@pytest.mark.parametrize("stacked", [False, True])
@pytest.mark.parametrize("form", NESTED)
def test_every_form_of_rules_loads_and_saves(tmp_path: Path, form: str, stacked: bool):
    tensors = {f"enc.{b}.res.{r}.w": finite((2, 3), seed=3 * b + r) for b in range(2) for r in range(3)}
    tensors |= {f"enc.{b}.att.q.w": finite((4,), seed=b) for b in range(2)}
    source, rules = write(tmp_path / "in.safetensors", tensors), NESTED[form]
    like: Any = {"blocks": [{"res": [{"w": np.zeros((2, 3), "f")}] * 3, "att": {"query": {"w": np.zeros(4, "f")}}}] * 2}
    if stacked:
        like = {"blocks": {"res": {"w": np.zeros((2, 3, 2, 3), "f")}, "att": {"query": {"w": np.zeros((2, 4), "f")}}}}
    plan = bridge.plan(source, like, rules)
    assert plan == bridge.plan(source, like, NESTED["pairs"])
    assert bridge.Plan.from_json(plan.to_json()) == plan
    assert json.loads(plan.to_json())["rules"] == [str(rule) for rule in plan.rules]
    assert [str(rule) for rule in plan.request.rules] == [f"{old} -> {new}" for old, new in NESTED["a dict"].items()]
    model = bridge.load(source, like, rules)
    for n, back in enumerate((rules, plan)):
        bridge.save(model, tmp_path / f"{n}.safetensors", back)
        assert bridge.diff(tmp_path / f"{n}.safetensors", source).equal
    report = bridge.convert(source, tmp_path / "native", like, rules)
    assert report is not None
    assert jax.tree.all(
        jax.tree.map(lambda a, b: bits(a) == bits(b), bridge.load(tmp_path / "native", like, rules), model)
    )
