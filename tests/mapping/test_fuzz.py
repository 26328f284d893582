"""Whatever rules, keys and leaves meet: a plan comes out that says what is wrong, and never another error."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge._errors import PlanError, RuleError
from bridge.mapping.template import PlacedLayout, Spec, Template
from bridge.planning.plan import PlanRequest, make_plan
from bridge.rules.rule import Rule

NAMES = st.sampled_from(
    [
        "a",
        "h.{l}.w",
        "h.{l}",
        "h.*.w",
        "h.**",
        "**",
        "*",
        "{q|k}",
        "{x|y}.w",
        "h.{l[1:]}.w",
        "h.{l[-1]}.w",
        "h.{l[::-1]}.w",
        "{(g i)}",
        "h.{(g i[:1])}.w",
        "w_{l}",
        "''",
        "{l}.{m}",
    ]
)
FACTORS = [
    "x",
    "y",
    "l",
    "g",
    "i",
    "1",
    "_",
    "...",
    "(q|k)",
    "(x|y)",
    "(x y)",
    "(l x)",
    "(x (q|k) y)",
    "x[1:]",
    "x[0,2]",
    "x[::-1]",
    "y[-1]",
]
AXES = st.none() | st.lists(st.sampled_from(FACTORS), max_size=3).map(lambda found: f" [{' '.join(found)}]")
OPTIONS = st.sampled_from(
    [
        "",
        " ; x=2",
        " ; i=2",
        " ; i=2 x=2",
        " ; tie=true",
        " ; copy=true",
        " ; add=1 scale=2",
        ' ; flip="x"',
        " ; q=1, k=2",
    ]
)
KEYS = ["a", "q", "k", "x.w", "y.w", "", "0", "5", "h.0.w", "h.1.w", "h.3.w", "w_0", "w_1", "0.0", "0.1", "h.0", "h"]
SHAPES = st.lists(st.integers(0, 4), max_size=3).map(tuple)


@st.composite
def rules(draw: st.DrawFn) -> str:
    """A text that may be a rule."""
    sides = [draw(NAMES) + (draw(AXES) or "") for _ in range(draw(st.sampled_from([2, 2, 2, 3])))]
    sides[-1] = draw(st.sampled_from([sides[-1]] * 5 + ["_"]))
    return " + ".join(sides[:-1]) + " -> " + sides[-1] + draw(OPTIONS)


LAYOUT = (Rule("q [(a|k) x] -> {a|k} [_ x]"), Rule("x + y -> w"), Rule("h -> _"))


@settings(max_examples=600)
@given(
    st.lists(rules(), max_size=3),
    st.dictionaries(st.sampled_from(KEYS), SHAPES, max_size=6),
    st.none() | st.dictionaries(st.sampled_from([*KEYS, "h.w", "w", "v", "l.w"]), SHAPES, max_size=5),
    st.sampled_from([(), (PlacedLayout("", LAYOUT),), (PlacedLayout("h", LAYOUT[:1], 1),)]),
)
def test_a_plan_comes_out(
    texts: list[str],
    keys: dict[str, tuple[int, ...]],
    leaves: dict[str, tuple[int, ...]] | None,
    placed: tuple[PlacedLayout, ...],
):
    dtype = np.dtype("f4")
    made: list[Rule] = []
    for text in texts:
        try:
            made.append(Rule(text))
        except RuleError:
            continue
    model = None
    if leaves is not None:
        there = tuple(
            PlacedLayout(p.prefix, tuple(r for r in p.rules if r.leaf is None or _has(p, r, leaves)), p.depth)
            for p in placed
        )
        model = Template({name: Spec(dtype, shape) for name, shape in leaves.items()}, there)
    specs = {key: Spec(dtype, shape) for key, shape in keys.items()}
    plan = make_plan(specs, model, PlanRequest(tuple(made)), source="ckpt/")
    assert str(plan)
    if plan.ok:
        again = make_plan(specs, model, PlanRequest(plan.rules), source="ckpt/")
        assert again == plan, f"{[*map(str, plan.rules)]}\n{plan}\n{again}"
        read = {*plan.keys, *plan.dropped}
        assert read == set(keys)
    else:
        with pytest.raises(PlanError, match=r"^\d+ problems? between 'ckpt/' "):
            plan.check()


def _has(placed: PlacedLayout, rule: Rule, leaves: dict[str, tuple[int, ...]]) -> bool:
    assert rule.leaf is not None
    names = ("a", "k") if "{" in str(rule.leaf.name) else (str(rule.leaf.name),)
    return all(placed.leaf(name) in leaves for name in names)


def test_the_rules_above_are_often_rules():
    names = ["h.{l}.w", "{q|k}", "a"]
    assert all(Rule(f"{a} -> {a}") for a, _ in combinations(names, 2))
