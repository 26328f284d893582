"""A plan as JSON: the same plan again, and an error of ours for whatever else is there."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest

import bridge
from tests.errors.promised import text_of
from tests.save.files import finite, read, struct, write

TENSORS = {
    **{f"h.{n}.w": finite((4, 4), seed=n) for n in range(3)},
    "x": finite((3,)),
    "t": finite((2,)),
    "u": finite((2,)),
    "q": finite((1,)),
    "a": finite((4,)),
    "b": finite((4,), seed=1),
    "half": finite((3,), jnp.bfloat16),
}
LIKE = {
    "w": struct((3, 4, 4)),
    "t": struct((2,)),
    "sum": struct((4,)),
    "half": struct((3,)),
    "more": struct((2,)),
    "u2": struct((2,)),
}
RULES = ["h.{l}.w [a b] -> w [l b a]", "x -> _", "u -> t ; tie=true", "a + b -> sum ; scale=2.0", "t -> u2 ; copy=true"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "model.safetensors", TENSORS)


@pytest.fixture
def plan(source: Path) -> bridge.Plan:
    plan = bridge.plan(source, LIKE, RULES, dtype={"w": "bf16"}, allow_missing=["more"], allow_unexpected=["q"])
    assert plan.ok, str(plan)
    return plan


def test_the_same_plan(tmp_path: Path, source: Path, plan: bridge.Plan):
    again = bridge.Plan.from_json(plan.to_json())
    assert again == plan
    for name in (
        "rules",
        "casts",
        "lossy",
        "missing",
        "unexpected",
        "kept",
        "allowed",
        "nbytes",
        "peak_nbytes",
        "source",
        "model",
    ):
        assert getattr(again, name) == getattr(plan, name), name
    assert json.loads(again.to_json()) == json.loads(plan.to_json())
    assert bridge.plan(source, LIKE, again, allow_missing=["more"]) == plan
    like = LIKE | {"more": jnp.ones(2)}
    one, two = bridge.load(source, like, plan), bridge.load(source, like, again)
    bridge.save(one, tmp_path / "one", plan)
    bridge.save(two, tmp_path / "two", again)
    assert read(tmp_path / "one") == read(tmp_path / "two")


def test_a_plan_that_is_not_ok_says_so_again(source: Path):
    plan = bridge.plan(source, LIKE, RULES)
    again = bridge.Plan.from_json(plan.to_json())
    assert (again.ok, again.missing, again.unexpected) == (False, plan.missing, plan.unexpected)


def test_another_version(plan: bridge.Plan):
    document = json.loads(plan.to_json()) | {"version": 9}
    with pytest.raises(bridge.PlanError) as caught:
        bridge.Plan.from_json(json.dumps(document))
    assert str(caught.value) == text_of("plan: another version").replace("99", "9")


@pytest.mark.parametrize("text", ["", "nope", "[]", "7", "null", "{}", "[" * 100_000])
def test_what_is_no_plan(text: str):
    with pytest.raises(bridge.PlanError, match=r"^this is not a plan that to_json wrote: "):
        bridge.Plan.from_json(text)


JUNK: list[Any] = [
    None,
    True,
    -1,
    2**70,
    1e999,
    1.5,
    "",
    "a ->",
    [],
    [1],
    ["F32", -1],
    ["F32", 2**62],
    ["F9"],
    {},
    [[]],
]


def places(node: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if at:
        yield at
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        yield from places(child, (*at, key))


def test_junk_in_every_place(plan: bridge.Plan):
    """Either it is a plan still, or one of our errors says that it is none."""
    document = json.loads(plan.to_json())
    refused = 0
    for at in places(document):
        for junk in JUNK:
            changed = copy.deepcopy(document)
            node = changed
            for step in at[:-1]:
                node = node[step]
            node[at[-1]] = junk
            try:
                str(bridge.Plan.from_json(json.dumps(changed)))
            except (bridge.PlanError, bridge.RuleError):
                refused += 1
    assert refused > 200


def test_a_plan_goes_to_another_process_and_back(source: Path):
    plan = bridge.plan(source, LIKE, RULES, allow_unexpected="**", allow_missing="**")
    for again in (pickle.loads(pickle.dumps(plan)), copy.deepcopy(plan)):  # noqa: S301 - our own bytes
        assert again == plan
        assert again.rules == plan.rules
