"""Selections that count from the end, saved: how many indices there are stands in the plan, or in an option."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bridge
from tests.save.files import bits, finite, read, write

N = 4
TENSORS = {f"h.{n}.w": finite((3,), seed=n) for n in range(N)}
ROWS = np.stack(list(TENSORS.values()))

CASES: dict[str, tuple[list[str], dict[str, Any]]] = {
    "the last": (["h.{l[:-1]}.w -> d", "h.{l[-1]}.w -> last"], {"d": ROWS[:-1], "last": ROWS[-1]}),
    "the last, and a list": (
        ["h.{l[:-1]}.w -> d.{l}", "h.{l[-1]}.w -> last"],
        {"d": list(ROWS[:-1]), "last": ROWS[-1]},
    ),
    "the last two": (["h.{l[-2:]}.w -> b", "h.{l[:-2]}.w -> a"], {"a": ROWS[:2], "b": ROWS[2:]}),
    "backwards": (["h.{l[::-1]}.w -> d"], {"d": ROWS[::-1]}),
    "some of them": (["h.{l[-1,0]}.w -> ends", "h.{l[1:-1]}.w -> d"], {"ends": ROWS[[3, 0]], "d": ROWS[1:3]}),
    "of two indices": (
        ["h.{(g[:-1] i)}.w -> a ; i=2", "h.{(g[-1] i)}.w -> b ; i=2"],
        {"a": ROWS[:2].reshape(1, 2, 3), "b": ROWS[2:]},
    ),
}


def sized(rules: list[str]) -> list[str]:
    """The rules with how many indices there are."""
    size = "g=2" if "g" in rules[0] else f"l={N}"
    return [f"{rule}{',' if ';' in rule else ' ;'} {size}" for rule in rules]


@pytest.mark.parametrize("case", CASES)
def test_by_rules_alone_the_number_is_asked_for(tmp_path: Path, case: str):
    rules, model = CASES[case]
    with pytest.raises(bridge.PlanError, match=r"[lg]=") as caught:
        bridge.save(model, tmp_path / "out", rules)
    assert "counts from the end" in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("case", CASES)
def test_with_the_number_they_are_saved_as_they_were(tmp_path: Path, case: str):
    rules, model = CASES[case]
    report = bridge.save(model, tmp_path / "out", sized(rules))
    assert read(tmp_path / "out") == {key: bits(array) for key, array in TENSORS.items()}
    assert report.left_out == ()
    assert bridge.plan(tmp_path / "out", model, sized(rules)) == bridge.plan(tmp_path / "out", model, rules)


@pytest.mark.parametrize("case", CASES)
def test_a_plan_knows_the_number(tmp_path: Path, case: str):
    rules, model = CASES[case]
    source = write(tmp_path / "in.safetensors", TENSORS)
    loaded, plan = bridge.load(source, model, rules), bridge.plan(source, model, rules)
    for name in ("a", "b", "d", "ends", "last"):
        assert name not in model or np.array_equal(np.array(loaded[name]), np.array(model[name]))
    for n, one in enumerate((plan, bridge.Plan.from_json(plan.to_json()))):
        bridge.save(loaded, tmp_path / f"{n}.safetensors", one)
        assert bridge.diff(tmp_path / f"{n}.safetensors", source).equal


def test_a_rule_that_saves_nothing_is_not_asked(tmp_path: Path):
    bridge.save({"x": ROWS[0]}, tmp_path, ["h.{l[-1]}.w -> last", "a -> x"])
    assert read(tmp_path) == {"a": bits(ROWS[0])}


def test_axes_from_the_end_need_their_extent(tmp_path: Path):
    rules = ["w [v[:-1] d] -> x [v d]", "w [v[-1:] d] -> y [v d]"]
    with pytest.raises(bridge.PlanError, match="v="):
        bridge.save({"x": ROWS[:-1], "y": ROWS[-1:]}, tmp_path / "out", rules)
