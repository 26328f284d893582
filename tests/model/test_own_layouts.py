"""`layouts=`: a user's own layers take PyTorch's tensors, wherever they stand, and give them back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import bridge
from tests.model.own_layers import BOTH, DROPPED, found, same, set_up, wanted
from tests.save.files import bits, read


@pytest.mark.parametrize(("name", "at"), BOTH)
def test_layers_take_their_tensors_and_give_them_back(tmp_path: Path, name: str, at: str):
    case, place, parts, source, model = set_up(tmp_path, name, at)
    plan = bridge.plan(source, model, layouts=case.layouts)
    loaded = bridge.load(source, model, layouts=case.layouts)
    same(found(loaded, case, place), wanted(case, place, parts))
    bridge.save(loaded, tmp_path / "plan.safetensors", plan)
    want = read(source)
    for key, (dtype, shape, data) in want.items():
        if key.endswith("num_batches_tracked"):
            want[key] = dtype, shape, bytes(len(data))  # used up, and written as 0
    assert read(tmp_path / "plan.safetensors") == {k: v for k, v in want.items() if not k.endswith("weight_rest")}


@pytest.mark.parametrize(("name", "at"), BOTH)
def test_the_plans_rules_say_it_without_layouts(tmp_path: Path, name: str, at: str):
    case, place, parts, source, model = set_up(tmp_path, name, at, "module.")
    plan = bridge.plan(source, model, "module.** -> **", layouts=case.layouts)
    assert plan.ok, str(plan)
    bare = bridge.plan(source, model, plan.rules)
    assert bare == plan
    assert bridge.plan(source, model, plan.rules, layouts=case.layouts) == plan
    assert bare.rules == plan.rules
    assert not any("*" in str(rule) for rule in plan.rules)
    again = bridge.Plan.from_json(plan.to_json())
    assert again == plan
    assert (again.rules, again.lossy, str(again)) == (plan.rules, plan.lossy, str(plan))
    same(found(bridge.load(source, model, again), case, place), wanted(case, place, parts))


@pytest.mark.parametrize(("name", "at"), BOTH)
def test_saving_by_rules(tmp_path: Path, name: str, at: str):
    """By the user's rules with the layouts, and by the plan's without them: what the layouts drop they alone know."""
    case, _, _, source, model = set_up(tmp_path, name, at)
    rules = BY_RULES[at]
    plan = bridge.plan(source, model, rules, layouts=case.layouts)
    loaded = bridge.load(source, model, plan)
    want = {key: value for key, value in read(source).items() if not key.endswith(DROPPED)}
    bridge.save(loaded, tmp_path / "concrete.safetensors", plan.rules)
    assert read(tmp_path / "concrete.safetensors") == want
    bridge.save(loaded, tmp_path / "rules.safetensors", rules, layouts=case.layouts)
    counters = {key: bits(np.array(0)) for key in read(source) if key.endswith("num_batches_tracked")}
    assert read(tmp_path / "rules.safetensors") == want | counters


BY_RULES = {
    "alone": "** -> **",
    "below a name": "net.layer.** -> net.layer.**",
    "a list": "layers.{l}.** -> layers.{l}.**",
    "Sequential": "net.** -> net.**",
    "a stack": "layers.{l}.** -> layers.{l}.**",
    "a nested stack": "a.{l}.b.{m}.** -> a.{l}.b.{m}.**",
    "a list of stacks": "layers.{l}.{m}.** -> layers.{l}.**",
}
