"""What 0.1.0 wrote still loads, saves and reverts: plans as JSON, and converted folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import pytest

import bridge
from tests.converted.old_models import CASES
from tests.save.files import bits, read

OLD = Path(__file__).parent / "0.1.0"
CONVERTED = [name for name, case in CASES.items() if case.converted]


def values(tree: Any) -> list[Any]:
    found = [bits(leaf) for leaf in jax.tree.leaves(tree) if eqx.is_array(leaf)]
    assert found
    return found


def test_the_files_are_few_and_small():
    files = [path for path in OLD.rglob("*") if path.is_file()]
    assert {path.name for path in OLD.iterdir()} == CASES.keys()
    assert sum(path.stat().st_size for path in files) < 100_000


@pytest.mark.parametrize("name", CASES)
def test_its_plans_are_plans(tmp_path: Path, name: str):
    case, source = CASES[name], OLD / name / "original.safetensors"
    old = bridge.Plan.from_json((OLD / name / "plan.json").read_text())
    new = bridge.plan(source, case.like(), case.rules, **case.options)
    assert old.ok, str(old)
    assert old == new
    assert bridge.Plan.from_json(old.to_json()) == new
    by_rules, by_old = (bridge.load(source, case.like(), rules, **case.options) for rules in (case.rules, old))
    assert values(by_old) == values(by_rules)
    bridge.save(by_old, tmp_path / "old.safetensors", old)
    bridge.save(by_old, tmp_path / "new.safetensors", new)
    assert read(tmp_path / "old.safetensors") == read(tmp_path / "new.safetensors")


@pytest.mark.parametrize("name", CONVERTED)
def test_its_converted_folders_load(name: str):
    case, folder = CASES[name], OLD / name / "converted"
    model = bridge.load(folder, case.like())
    assert values(model) == values(bridge.load(OLD / name / "original.safetensors", case.like(), case.rules))
    stored = [data for _, _, data in read(folder / "model.safetensors").values()]
    assert all(value.data in stored for value in values(model))
    again = bridge.load(folder, case.like(), case.rules)
    assert values(again) == values(model)
    plan = bridge.Plan.from_json((OLD / name / "plan.json").read_text())
    assert values(bridge.load(folder, case.like(), plan)) == values(model)


@pytest.mark.parametrize("name", CONVERTED)
def test_its_converted_folders_revert(tmp_path: Path, name: str):
    bridge.revert(OLD / name / "converted", tmp_path / "back")
    (back,) = (tmp_path / "back").iterdir()
    assert back.read_bytes() == (OLD / name / "original.safetensors").read_bytes()


def test_rules_that_it_was_not_converted_by_are_refused():
    case, folder = CASES["bert-list"], OLD / "bert-list" / "converted"
    with pytest.raises(bridge.PlanError, match="was converted by other rules than these"):
        bridge.load(folder, case.like(), ["bert.** -> **"])


def test_a_later_version_is_refused_with_what_to_do():
    document = json.loads((OLD / "left" / "plan.json").read_text())
    assert document["version"] == 1
    with pytest.raises(bridge.PlanError, match="version 9, this release reads 1"):
        bridge.Plan.from_json(json.dumps({**document, "version": 9}))
