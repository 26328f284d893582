"""Inference: a leaf's own name is its key, whether layers are lists or stacks, at any nesting; ambiguity is an error."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from bridge.mapping.template import Spec, Template
from bridge.planning.plan import Plan, PlanRequest, make_plan
from bridge.rules.rule import Rule
from tests.mapping.oracle import Arrays, Shape, again, loaded, planned, same, saved, tensors

F4 = np.dtype("f4")


def keys(*counts: int, shape: Shape = (2, 2)) -> dict[str, Shape]:
    """`a.{i}.b.{j}.c.{k}.w`, as deep as there are counts."""
    return {key_name(numbers): shape for numbers in product(*map(range, counts))}


def key_name(numbers: tuple[int, ...]) -> str:
    return ".".join(f"{part}.{number}" for part, number in zip("abc", numbers, strict=False)) + ".w"


def built(t: Arrays, counts: tuple[int, ...], stacked: tuple[bool, ...]) -> Arrays:
    """The leaves of a model whose levels are stacks or lists."""
    found: Arrays = {}
    for listed in product(*(range(1) if s else range(n) for n, s in zip(counts, stacked, strict=True))):
        name = ".".join(p if s else f"{p}.{n}" for p, n, s in zip("abc", listed, stacked, strict=False)) + ".w"
        axes = [range(c) if s else (n,) for c, s, n in zip(counts, stacked, listed, strict=True)]
        lead = [c for c, s in zip(counts, stacked, strict=True) if s]
        found[name] = np.stack([t[key_name(numbers)] for numbers in product(*axes)]).reshape(*lead, 2, 2)
    return found


@pytest.mark.parametrize("counts", [(3,), (2, 3), (3, 2), (2, 3, 4), (12, 2)])
def test_every_nesting_of_lists_and_stacks(counts: tuple[int, ...]):
    t = tensors(keys(*counts))
    for stacked in product((False, True), repeat=len(counts)):
        leaves = built(t, counts, stacked)
        plan = planned(t, leaves, [])
        assert plan.ok, plan
        same(loaded(plan, t), leaves)
        same(saved(plan, leaves), t)
        again(plan, t, leaves)


def test_rules_written_for_a_list_serve_a_stack_and_the_other_way():
    t = {f"model.{key}": array for key, array in tensors(keys(2, 3)).items()}
    plain = {key.removeprefix("model."): array for key, array in t.items()}
    for rules in (["model.** -> **"], ["model.a.{l}.** -> a.{l}.**"], ["model.a.{l}.b.{e}.* -> a.{l}.b.{e}.*"]):
        for stacked in product((False, True), repeat=2):
            leaves = built(plain, (2, 3), stacked)
            plan = planned(t, leaves, rules)
            assert plan.ok, plan
            same(loaded(plan, t), leaves)
            again(plan, t, leaves)


def test_a_carried_index_and_a_dropped_one():
    t = tensors({f"h.{l}.{n}.w": (2, 2) for l in range(3) for n in range(2)})
    leaves = {"x.w": np.stack([[t[f"h.{l}.{n}.w"] for l in range(3)] for n in range(2)])}
    plan = planned(t, leaves, ["h.{l}.** -> x.**"])
    assert plan.ok, plan
    same(loaded(plan, t), leaves)  # what the name keeps is in front of what it drops
    again(plan, t, leaves)


def test_two_complete_readings_are_an_error_that_shows_both():
    t = tensors(keys(2, 2))
    leaves = {f"a.{n}.b.w": np.zeros((2, 2, 2), np.int32) for n in range(2)}
    assert planned(t, leaves, []).ok  # one reading: the other's names are not there
    square = {"a.0.w": (2,), "a.1.w": (2,)}
    plan = planned(
        tensors({f"a.{i}.{j}.w": (2,) for i in range(2) for j in range(2)}), tensors(dict.fromkeys(square, (2, 2))), []
    )
    assert not plan.ok
    with pytest.raises(ValueError, match="can be read in 2 ways") as caught:
        plan.check()
    assert str(caught.value) == (
        "1 problem between 'ckpt/' (4 keys) and the model (2 leaves)\n"
        "  conflict    a.{i}.{j}.w\n"
        "              can be read in 2 ways, and each fits. Say which by a rule:\n"
        '              "a.{i}.{j}.w -> a.{j}.w"\n'
        '              "a.{i}.{j}.w -> a.{i}.w"'
    )


@pytest.mark.parametrize(("rule", "axis"), [("a.{i}.{j}.w -> a.{j}.w", 0), ("a.{i}.{j}.w -> a.{i}.w", 1)])
def test_each_printed_rule_settles_it(rule: str, axis: int):
    t = tensors({f"a.{i}.{j}.w": (2,) for i in range(2) for j in range(2)})
    whole = np.array([[t[f"a.{i}.{j}.w"] for j in range(2)] for i in range(2)])
    leaves = {f"a.{n}.w": whole.take(n, 1 - axis) for n in range(2)}
    plan = planned(t, leaves, [rule])
    assert plan.ok, plan
    same(loaded(plan, t), leaves)


def test_shapes_and_counts_may_settle_it():
    t = tensors({f"a.{i}.{j}.w": (5,) for i in range(2) for j in range(3)})
    by_first = {f"a.{i}.w": np.stack([t[f"a.{i}.{j}.w"] for j in range(3)]) for i in range(2)}
    by_second = {f"a.{j}.w": np.stack([t[f"a.{i}.{j}.w"] for i in range(2)]) for j in range(3)}
    for leaves in (by_first, by_second):
        plan = planned(t, leaves, [])
        assert plan.ok, plan
        same(loaded(plan, t), leaves)


def test_a_list_and_a_stack_of_one_name_are_ambiguous_only_if_both_are_whole():
    t = tensors({"a.0.w": (2, 2), "a.1.w": (2, 2)})
    leaves = {**t, "a.w": np.stack([t["a.0.w"], t["a.1.w"]])}
    plan = planned(t, leaves, [])
    assert not plan.ok
    assert [conflict.subject for conflict in plan.problems.conflicts] == ["a.{i}.w"]
    short = planned(t, {**t, "a.w": np.zeros((3, 2, 2), np.int32)}, [])
    assert short.missing == ("a.w",)


@pytest.mark.parametrize(
    "name",
    [
        "a b",
        "x+y",
        "",
        ".",
        "a..b",
        "{l}",
        "{}",
        "*",
        "**",
        "_",
        "''",
        "é",
        "a\nb",
        "\x1b[31m",
        "a->b",
        "[0]",
        "1",
        "0.00",
        "9" * 30,
    ],
)
def test_any_name_is_its_own_key(name: str):
    t = tensors({name: (2, 2), f"{name}.w": (3,), f"h.0.{name}": (2,), f"h.1.{name}": (2,)})
    plan = planned(t, t, [])
    assert plan.ok, plan
    same(loaded(plan, t), t)
    again(plan, t, t)
    stacked = {
        "h." + name: np.stack([t[f"h.0.{name}"], t[f"h.1.{name}"]]),
        **{k: v for k, v in t.items() if not k.startswith("h.")},
    }
    plan = planned(t, stacked, [])
    assert plan.ok, plan
    same(loaded(plan, t), stacked)
    again(plan, t, stacked)


def test_names_with_braces_are_no_indices():
    t = tensors({"a.{}.w": (2,), "a.0.w": (2,)})
    plan = planned(t, t, [])
    assert plan.ok, plan
    same(loaded(plan, t), t)
    assert "a.{}.w" in str(plan)


def test_an_alias_is_a_name_too():
    model = Template(
        {"seq.0.w": Spec(F4, (2,)), "seq.1.w": Spec(F4, (2,))},
        aliases={f"seq.layers.{n}.w": f"seq.{n}.w" for n in range(2)},
    )

    def plan(rules: list[str], *names: str) -> Plan:
        return make_plan(
            {name: Spec(F4, (2,)) for name in names}, model, PlanRequest(tuple(map(Rule, rules))), source="ckpt/"
        )

    one = plan([], "seq.0.w", "seq.1.w")
    assert one.ok
    assert plan([], "seq.layers.0.w", "seq.layers.1.w").ok
    by_alias = plan(["x.{l}.w -> seq.layers.{l}.w"], "x.0.w", "x.1.w")
    assert by_alias.ok
    assert [*map(str, by_alias.rules)] == ["x.{l}.w -> seq.{l}.w"]  # the plan says where it went
    assert by_alias == plan(["x.{l}.w -> seq.{l}.w"], "x.0.w", "x.1.w")


def test_what_rules_took_is_not_inferred():
    t = tensors({"a": (2,), "b": (2,)})
    plan = planned(t, {"a": t["b"]}, ["b -> a", "a -> _"])
    assert plan.ok, plan
    assert planned(t, {"a": t["b"]}, ["b -> a"]).problems.conflicts[0].text.startswith("filled by 'b' and by 'a'")
