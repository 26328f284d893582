"""Names and indices: renames, lists, stacks, selections, schedules."""

from __future__ import annotations

import numpy as np
import pytest

from tests.mapping.oracle import Case, judge

L = range(3)


def stack(tensors: dict[str, np.ndarray], key: str, *values: object) -> np.ndarray:
    """`key` with its `%` filled by each of `values`, along a new first axis."""
    return np.stack([tensors[key.replace("%", str(value), 1)] for value in values])


CASES = [
    Case("names stay", {"a.w": (2, 2), "b": (3,)}, [], lambda t: t),
    Case(
        "** renames",
        {"bert.a.w": (2, 2), "bert.b": (2,)},
        ["bert.** -> **"],
        lambda t: {k[5:]: v for k, v in t.items()},
    ),
    Case("** is no segment", {"bert": (2,)}, ["bert.** -> m.**"], lambda t: {"m": t["bert"]}),
    Case(
        "** at both ends",
        {"a.x.b": (2,), "x": (3,)},
        ["**.x.** -> **.y.**"],
        lambda t: {"a.y.b": t["a.x.b"], "y": t["x"]},
    ),
    Case(
        "the first ** takes as little as possible",
        {"a.x.b.x.c": (2,)},
        ["**.x.** -> **.y.**"],
        lambda t: {"a.y.b.x.c": t["a.x.b.x.c"]},
    ),
    Case(
        "* within a segment",
        {"q_proj.w": (2,), "k_proj.w": (2,)},
        ["*_proj.w -> *"],
        lambda t: {"q": t["q_proj.w"], "k": t["k_proj.w"]},
    ),
    Case("the first * takes as little as possible", {"a_b_c": (2,)}, ["*_* -> *.*"], lambda t: {"a.b_c": t["a_b_c"]}),
    Case(
        "* and ** carry over apart", {"m.q_proj.w": (2,)}, ["**.*_proj.w -> *.**"], lambda t: {"q.m": t["m.q_proj.w"]}
    ),
    Case("* is any text, none too", {"_proj": (2,)}, ["*_proj -> x*"], lambda t: {"x": t["_proj"]}),
    Case(
        "an index stays: a list",
        {f"h.{l}.w": (2, 2) for l in L},
        ["h.{l}.w -> n.{l}.v"],
        lambda t: {f"n.{l}.v": t[f"h.{l}.w"] for l in L},
    ),
    Case(
        "an index stays: a stack",
        {f"h.{l}.w": (2, 2) for l in L},
        ["h.{l}.w -> n.{l}.v"],
        lambda t: {"n.v": stack(t, "h.%.w", *L)},
    ),
    Case(
        "an index is dropped", {f"h.{l}.w": (2, 2) for l in L}, ["h.{l}.w -> v"], lambda t: {"v": stack(t, "h.%.w", *L)}
    ),
    Case(
        "twelve layers in order",
        {f"h.{l}.w": (2, 2) for l in (10, 11, *range(10))},
        ["h.{l}.w -> v"],
        lambda t: {"v": stack(t, "h.%.w", *range(12))},
    ),
    Case(
        "two dropped: in the key's order",
        {f"h.{l}.{e}.w": (2, 2) for l in range(2) for e in range(2)},
        ["h.{l}.{e}.w -> v"],
        lambda t: {"v": np.stack([stack(t, f"h.{l}.%.w", 0, 1) for l in range(2)])},
    ),
    Case(
        "one stays in the name, one is dropped",
        {f"h.{l}.{e}.w": (2, 2) for l in range(2) for e in range(2)},
        ["h.{l}.{e}.w -> {e}.v"],
        lambda t: {f"{e}.v": stack(t, f"h.%.{e}.w", 0, 1) for e in range(2)},
    ),
    Case(
        "what the name keeps is a leading axis before what it drops",
        {f"h.{l}.{e}.w": (2, 2) for l in range(2) for e in range(2)},
        ["h.{l}.{e}.w -> {e}.v"],
        lambda t: {"v": np.stack([stack(t, f"h.%.{e}.w", 0, 1) for e in range(2)])},
    ),
    Case(
        "an index within a segment",
        {f"w_l{l}": (2, 2) for l in L},
        ["w_l{l} -> cells.{l}.w"],
        lambda t: {f"cells.{l}.w": t[f"w_l{l}"] for l in L},
    ),
    Case(
        "an index within a segment, stacked",
        {f"w_l{l}": (2, 2) for l in L},
        ["w_l{l} -> cells.{l}.w"],
        lambda t: {"cells.w": stack(t, "w_l%", *L)},
    ),
    Case(
        "an index into a segment",
        {f"h.{l}.w": (2, 2) for l in L},
        ["h.{l}.w -> w_l{l}"],
        lambda t: {f"w_l{l}": t[f"h.{l}.w"] for l in L},
    ),
    Case(
        "wildcards carry an index into a stack",
        {f"m.h.{l}.a.w": (2, 2) for l in L},
        ["m.** -> **"],
        lambda t: {"h.a.w": stack(t, "m.h.%.a.w", *L)},
    ),
    Case(
        "* carries an index",
        {f"m.{l}.w": (2, 2) for l in L},
        ["m.*.w -> n.*.v"],
        lambda t: {"n.v": stack(t, "m.%.w", *L)},
    ),
    Case(
        "* glued to text carries digits as text",
        {f"m.{l}.w": (2, 2) for l in L},
        ["m.*.w -> n_*.v"],
        lambda t: {f"n_{l}.v": t[f"m.{l}.w"] for l in L},
    ),
    Case(
        "some of them, numbered from 0",
        {f"h.{l}.w": (2, 2) for l in range(5)},
        ["h.{l[:2]}.w -> a.{l}.w", "h.{l[2:]}.w -> b.{l}.w"],
        lambda t: {"a.0.w": t["h.0.w"], "a.1.w": t["h.1.w"], "b.w": stack(t, "h.%.w", 2, 3, 4)},
    ),
    Case(
        "a step",
        {f"h.{l}.w": (2, 2) for l in range(5)},
        ["h.{l[1::2]}.w -> a.{l}.w", "h.{l[::2]}.w -> b.{l}.w"],
        lambda t: {"a.w": stack(t, "h.%.w", 1, 3), "b.w": stack(t, "h.%.w", 0, 2, 4)},
    ),
    Case(
        "a list of them, in its order",
        {f"h.{l}.w": (2, 2) for l in range(5)},
        ["h.{l[4,0,1]}.w -> a.{l}.w", "h.{l}.w -> b.{l}.w"],
        lambda t: {"a.w": stack(t, "h.%.w", 4, 0, 1), "b.2.w": t["h.2.w"], "b.3.w": t["h.3.w"]},
    ),
    Case(
        "negative bounds count what is there",
        {f"h.{l}.w": (2, 2) for l in range(12)},
        ["h.{l[-2:]}.w -> b.{l}.w", "h.{l[:-2]}.w -> a.{l}.w"],
        lambda t: {"a.w": stack(t, "h.%.w", *range(10)), "b.w": stack(t, "h.%.w", 10, 11)},
    ),
    Case(
        "the last, reversed, and one by number",
        {f"h.{l}.w": (2, 2) for l in range(4)},
        ["h.{l[-1]}.w -> last.w", "h.{l[2::-1]}.w -> back.{l}.w"],
        lambda t: {"last.w": t["h.3.w"], "back.w": stack(t, "h.%.w", 2, 1, 0)},
    ),
    Case(
        "a selection of the leaf's",
        {**{f"a.{l}.w": (2, 2) for l in range(2)}, **{f"b.{l}.w": (2, 2) for l in range(2)}},
        ["a.{l}.w -> w.{l[:2]}", "b.{l}.w -> w.{l[2:]}"],
        lambda t: {"w": np.concatenate([stack(t, "a.%.w", 0, 1), stack(t, "b.%.w", 0, 1)])},
    ),
    Case(
        "a selection of the leaf's: a list",
        {**{f"a.{l}.w": (2, 2) for l in range(2)}, "b.w": (2, 2)},
        ["a.{l}.w -> w.{l[2,0]}", "b.w -> w.1"],
        lambda t: {"w.0": t["a.1.w"], "w.1": t["b.w"], "w.2": t["a.0.w"]},
    ),
    Case(
        "a stack filled by name and by index",
        {**{f"a.{l}.w": (2, 2) for l in range(2)}, "b.w": (2, 2)},
        ["a.{l}.w -> w.{l[2,0]}", "b.w -> w.1"],
        lambda t: {"w": np.stack([t["a.1.w"], t["b.w"], t["a.0.w"]])},
    ),
    Case(
        "both sides select",
        {f"a.{l}.w": (2, 2) for l in range(2, 4)},
        ["a.{l[2:]}.w -> w.{l[::2]}"],
        lambda t: {"w.0": t["a.2.w"], "w.2": t["a.3.w"]},
    ),
    Case(
        "a schedule, from a flat list to groups",
        {f"h.{l}.w": (2, 2) for l in range(14)},
        [
            "h.{l[12:]}.** -> tail.{l}.**",
            "h.{(g i[:5])}.** -> local.{g}.{i}.** ; i=6",
            "h.{(g i[5])}.** -> full.{g}.** ; i=6",
        ],
        lambda t: {
            "tail.w": stack(t, "h.%.w", 12, 13),
            "local.w": np.stack([stack(t, "h.%.w", *range(6 * g, 6 * g + 5)) for g in range(2)]),
            "full.w": stack(t, "h.%.w", 5, 11),
        },
    ),
    Case(
        "a schedule, from groups to a flat stack",
        {**{f"a.{g}.{i}": (2, 2) for g in range(2) for i in range(2)}, **{f"b.{g}": (2, 2) for g in range(2)}},
        ["a.{g}.{i} -> h.{(g i[:2])}.w ; i=3", "b.{g} -> h.{(g i[2])}.w ; i=3"],
        lambda t: {"h.w": np.stack([t["a.0.0"], t["a.0.1"], t["b.0"], t["a.1.0"], t["a.1.1"], t["b.1"]])},
    ),
    Case(
        "three in one number",
        {f"h.{l}.w": (2,) for l in range(8)},
        ["h.{(a b c)}.w -> w.{c}.{a}.{b} ; b=2, c=2"],
        lambda t: {
            "w": np.array([[[t[f"h.{4 * a + 2 * b + c}.w"] for b in range(2)] for a in range(2)] for c in range(2)])
        },
    ),
    Case(
        "choices in names pair by position",
        {f"a.{p}.w": (2, 2) for p in "qkv"},
        ["a.{q|k|v}.w -> {wq|wk|wv}"],
        lambda t: {f"w{p}": t[f"a.{p}.w"] for p in "qkv"},
    ),
    Case(
        "choices in names: the same labels pair by position too",
        {f"a.{p}": (2, 2) for p in "xy"},
        ["a.{x|y} -> b.{y|x}"],
        lambda t: {"b.y": t["a.x"], "b.x": t["a.y"]},
    ),
    Case(
        "a choice within a segment, of parts of names",
        {"h.q_proj.w": (2,), "h.o.dense.w": (2,)},
        ["h.{q_proj|o.dense}.w -> {q|o}_w"],
        lambda t: {"q_w": t["h.q_proj.w"], "o_w": t["h.o.dense.w"]},
    ),
    Case(
        "two choices",
        {f"{a}.{p}": (2, 2) for a in "ab" for p in "qk"},
        ["{a|b}.{q|k} -> {x|y}.{c|d}"],
        lambda t: {"x.c": t["a.q"], "x.d": t["a.k"], "y.c": t["b.q"], "y.d": t["b.k"]},
    ),
    Case(
        "the first rule that matches",
        {"a.x": (2,), "a.y": (2,)},
        ["a.x -> c", "a.* -> *"],
        lambda t: {"c": t["a.x"], "y": t["a.y"]},
    ),
    Case("the whole key by an empty name", {"": (2,)}, ["'' -> w"], lambda t: {"w": t[""]}),
    Case("the whole tree is one leaf", {"w": (2,)}, ["w -> ''"], lambda t: {"": t["w"]}),
    Case(
        "names full of the language's own characters",
        {"a b": (2,), "x+y": (2,), "{l}.[*]": (2,), "a->b;c\\": (2,)},
        [],
        lambda t: t,
    ),
    Case(
        "dots side by side",
        {"a..b": (2,), ".c": (2,), "d.": (2,)},
        ["a.** -> z.**"],
        lambda t: {"z..b": t["a..b"], ".c": t[".c"], "d.": t["d."]},
    ),
    Case(
        "escapes",
        {"a b": (2,), "{l}": (3,)},
        ["a\\ b -> x\\+y", "\\{l\\} -> c\\|d"],
        lambda t: {"x+y": t["a b"], "c|d": t["{l}"]},
    ),
    Case(
        "zeros: no index",
        {"h.00.w": (2,), "h.01.w": (2,)},
        ["h.** -> n.**"],
        lambda t: {k.replace("h", "n"): v for k, v in t.items()},
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_names(case: Case):
    judge(case)
