"""Choices that stand on the key side alone: of the branches one is there, and concrete rules spell which."""

from __future__ import annotations

import numpy as np
import pytest

from tests.mapping.oracle import Case, judge, planned, tensors

RULE = "{down|up}samplers.{s}.** -> resample.{s}.**"

CASES = [
    Case(
        "one branch, a list",
        {"upsamplers.0.w": (2,), "upsamplers.1.w": (3,)},
        RULE,
        lambda t: {f"resample.{s}.w": t[f"upsamplers.{s}.w"] for s in range(2)},
    ),
    Case(
        "one branch, a stack",
        {f"downsamplers.{s}.w": (2, 3) for s in range(3)},
        RULE,
        lambda t: {"resample.w": np.stack([t[f"downsamplers.{s}.w"] for s in range(3)])},
    ),
    Case(
        "another branch for each place of a list",
        {"upsamplers.1.w": (2,), "downsamplers.0.w": (2,), "upsamplers.2.w": (4,)},
        RULE,
        lambda t: {
            "resample.0.w": t["downsamplers.0.w"],
            "resample.1.w": t["upsamplers.1.w"],
            "resample.2.w": t["upsamplers.2.w"],
        },
    ),
    Case(
        "another branch for each place of a stack",
        {"upsamplers.1.w": (2,), "downsamplers.0.w": (2,)},
        RULE,
        lambda t: {"resample.w": np.stack([t["downsamplers.0.w"], t["upsamplers.1.w"]])},
    ),
    Case(
        "with axes, another branch for each place",
        {"upsamplers.1.w": (2, 3), "downsamplers.0.w": (2, 3)},
        "{down|up}samplers.{s}.w [o i] -> resample.w [i s o]",
        lambda t: {"resample.w": np.stack([t["downsamplers.0.w"].T, t["upsamplers.1.w"].T], 1)},
    ),
    Case(
        "beside a choice of both sides",
        {f"up.{s}.{p}_proj": (2,) for s in range(2) for p in "qk"},
        "{down|up}.{s}.{q|k}_proj -> resample.{q|k}",
        lambda t: {f"resample.{p}": np.stack([t[f"up.{s}.{p}_proj"] for s in range(2)]) for p in "qk"},
    ),
    Case(
        "beside a split",
        {"up.qkv": (6, 2)},
        "{down|up}.qkv [(q|k|v) m] -> {q|k|v} [_ m]",
        lambda t: {p: t["up.qkv"][2 * n : 2 * n + 2] for n, p in enumerate("qkv")},
    ),
    Case(
        "beside a join",
        {f"mid.{p}": (2, 2) for p in "qkv"},
        "{down|up|mid}.{q|k|v} [_ m] -> qkv [(q|k|v) m]",
        lambda t: {"qkv": np.concatenate([t[f"mid.{p}"] for p in "qkv"])},
    ),
    Case(
        "several at once",
        {"b.y.w": (2,)},
        "{a|b}.{x|y|z}.w -> w",
        lambda t: {"w": t["b.y.w"]},
    ),
    Case(
        "in the terms of a sum, by position",
        {"new.bias_ih": (2,), "new.bias_hh": (2,)},
        "{old|new}.bias_ih + {old|new}.bias_hh -> bias",
        lambda t: {"bias": t["new.bias_ih"] + t["new.bias_hh"]},
        invertible=False,
    ),
    Case(
        "a label that is empty",
        {"model.norm.w": (2,)},
        "{|model.}norm.w -> norm.w",
        lambda t: {"norm.w": t["model.norm.w"]},
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_branch_that_is_there_fills_the_leaf(case: Case):
    judge(case)


def test_concrete_rules_spell_the_branch_that_was_read():
    arrays = tensors({"upsamplers.1.w": (2,), "downsamplers.0.w": (2,)})
    plan = planned(arrays, {"resample.w": np.zeros((2, 2), np.int32)}, RULE)
    assert [str(rule) for rule in plan.rules] == [
        "upsamplers.{s}.w -> resample.w",
        "downsamplers.{s}.w -> resample.w",
    ]
    one = planned(tensors({"up.0.w": (2,)}), {"x.0.w": np.zeros(2, np.int32)}, "{down|up}.{s}.w -> x.{s}.w")
    assert [str(rule) for rule in one.rules] == ["up.{s}.w -> x.{s}.w"]


@pytest.mark.parametrize(
    ("rule", "shape", "leaves"),
    [
        ("{down|up}.{s}.w -> x.{s}.w", (2,), {"x.0.w": (2,)}),
        ("{down|up}.{s}.w -> x.{s}.w", (2,), {"x.w": (1, 2)}),
        ("{down|up}.{s}.w -> x.{s}.w", (2,), None),
        ("{down|up}.{s}.w [a b] -> x [b a s]", (2, 3), {"x": (3, 2, 1)}),
        ("{down|up}.{s}.w [(q|k)] -> x.{s}.{q|k} [_]", (4,), {"x.0.q": (2,), "x.0.k": (2,)}),
    ],
)
def test_two_branches_for_one_leaf_are_a_problem_that_names_both(
    rule: str, shape: tuple[int, ...], leaves: dict[str, tuple[int, ...]] | None
):
    arrays = tensors({"up.0.w": shape, "down.0.w": shape})
    model = None if leaves is None else {name: np.zeros(extents, np.int32) for name, extents in leaves.items()}
    plan = planned(arrays, model, rule)
    assert not plan.ok
    assert "'up.0.w'" in str(plan)
    assert "'down.0.w'" in str(plan)
