"""Nested rules judged by numpy; what an inner rule does not match falls through to the rules behind."""

from __future__ import annotations

import numpy as np
import pytest

from tests.mapping.oracle import Case, judge, planned, tensors

CASES = [
    Case(
        "blocks, in lists",
        {f"down_blocks.{b}.resnets.{r}.w": (2,) for b in range(2) for r in range(3)},
        ("down_blocks.{b}.** -> down.{b}.**", ["resnets.{r}.** -> res.{r}.**"]),
        lambda t: {f"down.{b}.res.{r}.w": t[f"down_blocks.{b}.resnets.{r}.w"] for b in range(2) for r in range(3)},
    ),
    Case(
        "blocks, stacked twice, an inner axis in front",
        {f"h.{b}.r.{r}.w": (2, 4) for b in range(2) for r in range(3)},
        ("h.{b}.** -> h.**", [("r.{r}.** -> **", {"w [o i]": "w [r i b o]"})]),
        lambda t: {
            "h.w": np.stack([np.stack([t[f"h.{b}.r.{r}.w"].T for b in range(2)], 1) for r in range(3)]),
        },
    ),
    Case(
        "a schedule whose count stands on the outer rule",
        {f"h.{l}.w": (2, 3) for l in range(6)},
        [
            ("h.{(g i[:2])}.** -> local.{g}.{i}.** ; i=3", ["w [a b] -> w [b a]"]),
            ("h.{(g i[2])}.** -> full.{g}.** ; i=3", ["w -> w"]),
        ],
        lambda t: {
            "local.w": np.stack([np.stack([t[f"h.{3 * g + i}.w"].T for i in range(2)]) for g in range(2)]),
            "full.w": np.stack([t[f"h.{3 * g + 2}.w"] for g in range(2)]),
        },
    ),
    Case(
        "what falls through, and the order",
        {"a.x": (2,), "a.y": (3,), "a.z": (4,)},
        [("a.** -> b.**", ["x -> first"]), "a.y -> c", "a.** -> d.**"],
        lambda t: {"b.first": t["a.x"], "c": t["a.y"], "d.z": t["a.z"]},
    ),
    Case(
        "a drop, a split and a tie within",
        {"m.qkv": (6, 2), "m.freq": (2,), "m.head": (4, 2)},
        ("m.** -> **", ["qkv [(q|k|v) m] -> {q|k|v} [_ m]", "freq -> _", "head -> embed ; tie=true"]),
        lambda t: {**{p: t["m.qkv"][2 * n : 2 * n + 2] for n, p in enumerate("qkv")}, "embed": t["m.head"]},
        invertible=False,
    ),
    Case(
        "a sum within",
        {f"rnn.{l}.{b}": (2,) for l in range(2) for b in ("ih", "hh")},
        ("rnn.{l}.** -> cells.**", ["ih + hh -> bias"]),
        lambda t: {"cells.bias": np.stack([t[f"rnn.{l}.ih"] + t[f"rnn.{l}.hh"] for l in range(2)])},
        invertible=False,
    ),
    Case(
        "one tensor taken apart into the outer leaf's list",
        {"moe.gate": (3, 2, 4)},
        ("moe.** -> experts.**", ["gate [e f m] -> gate.{e} [m f]"]),
        lambda t: {f"experts.gate.{e}": t["moe.gate"][e].T for e in range(3)},
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_nested(case: Case):
    judge(case)


def test_an_inner_rule_that_matches_nothing_is_listed_as_the_flat_rule_it_is():
    rules = ("h.{l}.** -> x.{l}.**", ["w -> w", "b -> b"])
    plan = planned(tensors({"h.0.w": (2,)}), {"x.0.w": np.zeros(2, np.int32)}, rules)
    assert plan.ok
    assert plan.idle == ("h.{l}.b -> x.{l}.b",)
    assert [str(rule) for rule in plan.rules] == ["h.{l}.w -> x.{l}.w"]


def test_a_second_spelling_is_no_remark_where_it_is_not_there():
    rules = ["w -> w", "old.w -> w ; alt=true", "older.w -> w"]
    plan = planned(tensors({"w": (2,)}), {"w": np.zeros(2, np.int32)}, rules)
    assert plan.ok
    assert plan.idle == ("older.w -> w",)
    assert "old.w" not in str(plan).replace("older.w", "")
