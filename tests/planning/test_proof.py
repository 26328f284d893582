"""What a plan says besides its report: missing on purpose, ties, copies, drops, rules of its own, and how long it takes."""

from __future__ import annotations

import time

import numpy as np
import pytest

from bridge.mapping.pattern import NamePatterns
from bridge.mapping.template import Spec, Template
from bridge.planning.plan import Plan, PlanRequest, make_plan
from bridge.planning.policy import DtypePolicy, narrows, refusal
from bridge.rules.rule import Rule
from tests.mapping.oracle import planned, tensors

F4 = np.dtype("f4")
Shapes = dict[str, tuple[int, ...]]


def plan(keys: Shapes, leaves: Shapes | None, rules: list[str] = [], **request: object) -> Plan:  # noqa: B006
    model = None if leaves is None else Template({name: Spec(F4, shape) for name, shape in leaves.items()})
    specs = {key: Spec(F4, shape) for key, shape in keys.items()}
    return make_plan(specs, model, PlanRequest(tuple(map(Rule, rules)), **request), source="ckpt/")  # type: ignore[arg-type]


def test_what_may_be_missing_is_kept():
    made = plan({"a": (3,)}, {"a": (3,), "head.w": (3,), "head.b": (3,)}, allow_missing=NamePatterns.of("head.**"))
    assert made.ok
    assert made.kept == ("head.w", "head.b")
    assert (
        plan({"a": (3,), "head.w": (3,)}, {"a": (3,), "head.w": (3,)}, allow_missing=NamePatterns.of("head.**")).kept
        == ()
    )


def test_what_may_be_missing_must_still_be_whole():
    made = plan({"h.0.w": (3,), "h.2.w": (3,)}, {"h.w": (3, 3)}, allow_missing=NamePatterns.of("**"))
    assert made.missing == ("h.w[1]",)


def test_what_may_be_unexpected():
    made = plan({"a": (3,), "x.f": (3,), "y.f": (3,)}, {"a": (3,)}, allow_unexpected=NamePatterns.of(["**.f"]))
    assert made.ok
    assert made.allowed == ("x.f", "y.f")
    assert made.unexpected == ()


def test_a_tie_suffices_alone_and_is_compared_beside_the_leaf_s_own_key():
    rules = ["lm_head -> embed ; tie=true"]
    both = plan({"embed": (3,), "lm_head": (3,)}, {"embed": (3,)}, rules)
    alone = plan({"lm_head": (3,)}, {"embed": (3,)}, rules)
    own = plan({"embed": (3,)}, {"embed": (3,)}, rules)
    assert both.ok
    assert alone.ok
    assert own.ok
    assert sorted(block.tie for block in both.blocks) == [False, True]
    assert [block.tie for block in alone.blocks] == [False]
    assert own.idle == (rules[0],)
    wrong = plan({"embed": (3,), "lm_head": (4,)}, {"embed": (3,)}, rules)
    assert [row[:2] for row in wrong.mismatched] == [("embed", "lm_head")]


def test_a_copy_takes_nothing():
    made = plan({"w": (3,)}, {"w": (3,), "v": (3,)}, ["w -> v ; copy=true"])
    assert made.ok
    assert [block.copy for block in made.blocks] == [True, False]
    assert plan({"w": (3,)}, {"v": (3,)}, ["w -> v ; copy=true"]).ok
    part = plan({"w": (3,)}, {"v": (2,)}, ["w [x[:2]] -> v [x] ; copy=true"])
    assert part.unexpected == ("w",)


def test_drops_keep_their_place_among_the_rules():
    keys: Shapes = {f"h.{n}.w": (3,) for n in range(3)}
    first = plan(keys, {"v": (2, 3)}, ["h.{l[0]}.w -> _", "h.{l[1:]}.w -> v"])
    last = plan(keys, {"v": (3,)}, ["h.0.w -> v", "h.{l}.w -> _"])
    for made in (first, last):
        assert made.ok
        leaves = {name: spec.shape for name, spec in made.leaves.items()}
        assert plan(keys, leaves, [*map(str, made.rules)]) == made
    assert [*map(str, first.rules)] == ["h.{l[0]}.w -> _", "h.{l[1:]}.w -> v"]
    assert [*map(str, last.rules)] == ["h.0.w -> v", "h.{l}.w -> _"]


def test_bounds_that_count_from_the_end_are_written_out():
    keys: Shapes = {f"h.{n}.{part}": (3,) for n in range(12) for part in ("w", "b")}
    made = plan(
        keys,
        {"w": (2, 3), "b": (2, 3), **{f"r.{n}.{p}": (3,) for n in range(10) for p in "wb"}},
        ["h.{l[-2:]}.** -> **", "h.{l[9::-1]}.** -> r.{l}.**"],
    )
    assert made.ok, made
    assert [*map(str, made.rules)] == [
        "h.{l[10:12]}.w -> w",
        "h.{l[10:12]}.b -> b",
        "h.{l[9::-1]}.w -> r.{l}.w",
        "h.{l[9::-1]}.b -> r.{l}.b",
    ]
    last = plan({f"h.{n}": (3,) for n in range(4)}, {"v": (3,)}, ["h.{l[-1]} -> v", "h.{l[-2::-1]} -> _"])
    assert [*map(str, last.rules)] == ["h.{l[3]} -> v", "h.{l[2::-1]} -> _"]


def test_plans_are_equal_where_they_move_the_same_elements():
    t = tensors({f"h.{n}.w": (2, 2) for n in range(2)})
    stacked = {"w": np.zeros((2, 2, 2), np.int32)}
    spellings = [
        ["h.{l}.w -> w"],
        ["h.{x}.w [a b] -> w [x a b]"],
        ["h.{l}.w [...] -> w [...]"],
        ["h.{l}.** -> **"],
        ["h.0.w -> w.0", "h.{l[1:]}.w -> w.{l[1:]}"],
    ]
    plans = [planned(t, stacked, rules) for rules in spellings]
    assert all(made.ok for made in plans)
    assert all(made == plans[0] for made in plans)
    assert planned(t, stacked, ["h.{l}.w [a b] -> w [l b a]"]) != plans[0]
    assert planned(t, stacked, ["h.{l[::-1]}.w -> w"]) != plans[0]
    assert plans[0] != "a plan"


@pytest.mark.parametrize(
    ("stored", "dtype", "taken", "loses"),
    [
        ("f4", "f4", True, False),
        ("f2", "f4", True, False),
        ("f4", "f2", True, True),
        ("f8", "f4", True, True),
        ("bfloat16", "f4", True, False),
        ("bfloat16", "f2", True, True),
        ("f2", "bfloat16", True, True),
        ("i4", "i8", True, False),
        ("u1", "i2", True, False),
        ("i8", "i4", True, False),  # value by value: JAX without x64
        ("i4", "i2", False, False),
        ("i1", "u1", False, False),
        ("u8", "i8", False, False),
        ("f4", "i4", False, False),
        ("i4", "f4", False, False),
        ("?", "f4", False, False),
        ("c8", "f4", False, False),
        ("float8_e4m3fn", "f4", False, False),
        ("float8_e4m3fn", "float8_e4m3fn", True, False),
        ("float4_e2m1fn", "float4_e2m1fn", False, False),
        ("float6_e2m3fn", "float6_e2m3fn", False, False),
    ],
)
def test_casts(stored: str, dtype: str, taken: bool, loses: bool):
    import ml_dtypes

    a, b = (np.dtype(getattr(ml_dtypes, name, name)) for name in (stored, dtype))
    assert (refusal(a, b) is None) == taken
    assert narrows(a, b) == loses


def test_a_dtype_by_leaf():
    policy = DtypePolicy.of({"h.**": "bf16", "**": "checkpoint"})
    assert policy.dtype("h.w", np.dtype("f4"), np.dtype("f8")).name == "bfloat16"
    assert policy.dtype("x", np.dtype("f4"), np.dtype("f8")) == np.dtype("f4")
    assert DtypePolicy.of("f16").dtype("n", np.dtype("i4"), np.dtype("i8")) == np.dtype("i8")


MANY = {f"h.{l}.moe.{e}.w": (4, 4) for l in range(1000) for e in range(100)}


@pytest.mark.parametrize(
    ("leaves", "rules"),
    [
        ({"moe.w": (1000, 100, 4, 4)}, ["h.{l}.moe.{e}.w -> moe.w"]),
        ({"moe.w": (1000, 4, 100, 4)}, ["h.{l}.moe.{e}.w [f m] -> moe.w [l m e f]"]),
        ({"h.moe.w": (1000, 100, 4, 4)}, []),
        (MANY, []),
    ],
    ids=["one stack, one rule", "one stack, axes", "one stack, inferred", "a leaf for each key, inferred"],
)
def test_a_hundred_thousand_keys(leaves: Shapes, rules: list[str]):
    start = time.process_time()
    made = plan(MANY, leaves, rules)
    assert made.ok
    assert time.process_time() - start < 15  # about a second; what is quadratic takes minutes
    assert len(made.rules) == 1


SQUARE = {f"h.{n}.w": (3, 3) for n in range(2)}


@pytest.mark.parametrize(
    "rules",
    [
        ["h.{l}.v [i o] -> w [l o i]", "h.{l}.w -> w"],
        ["h.{l}.** -> **", "h.{l}.w [i o] -> w [l o i]"],
        ["h.{l}.w -> w", "h.{l}.w -> w ; scale=2.0"],
    ],
)
def test_a_rule_with_axes_that_takes_no_key_and_whose_leaf_is_filled_otherwise(rules: list[str]):
    made = plan(SQUARE, {"w": (2, 3, 3)}, rules)
    assert not made.ok
    assert "takes no key, and leaf 'w' is filled from 'h.0.w' without it" in str(made)


@pytest.mark.parametrize(
    "rules",
    [
        ["h.{l}.w [i o] -> w [l i o]", "h.{l}.v [i o] -> w [l i o]"],  # filled in the same way
        ["h.{l}.w -> w", "h.{l}.v [i o] -> w [l o i] ; alt=true"],
        ["h.{l}.w -> w", "h.{l}.v -> w"],  # a rename is only listed
        ["h.{l}.w -> w", "x [i o] -> y [o i]"],
    ],
)
def test_a_rule_that_takes_no_key_is_else_only_listed(rules: list[str]):
    made = plan(SQUARE, {"w": (2, 3, 3)}, rules)
    assert made.ok, made
    assert len(made.idle) == ("alt" not in rules[1])
