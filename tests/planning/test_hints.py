"""What is proposed for a missing leaf, and when as a rule: one key for one leaf, and nothing that is only likely."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.planning.reports import Shapes, plan, report


def said(keys: Shapes, leaves: Shapes, rules: Sequence[str] = ()) -> list[str]:
    """What the report says below missing leaves."""
    text = report(keys, leaves, rules).partition("  unexpected")[0]
    return [line.strip() for line in text.splitlines()[1:] if line.startswith(" " * 14)]


def pasted(keys: Shapes, leaves: Shapes) -> list[str]:
    """The rules that it says."""
    return [rule for line in said(keys, leaves) if line.startswith("if so") for rule in re.findall(r'"([^"]+)"', line)]


def test_one_key_for_one_leaf():
    keys = {"embed_in.weight": (50, 8), "embed_out.weight": (50, 8)}
    leaves = {"embed.weight": (50, 8), "head.weight": (50, 8)}
    assert pasted(keys, leaves) == ["embed_in.weight -> embed.weight"]  # 'embed_out' is called as 'embed' is
    assert "did you mean 'embed_out.weight' (unused, same shape)?" in said(keys, leaves)
    keys = {"net.norm_a.weight": (8,), "net.norm_b.weight": (8,)}
    leaves = {"net.first.scale": (8,), "net.second.scale": (8,)}
    assert pasted(keys, leaves) == []


def test_gamma_is_a_weight_and_beta_a_bias():
    keys = {f"h.{n}.norm.{p}": (4,) for n in range(3) for p in ("gamma", "beta")}
    leaves = {f"norm.{p}": (3, 4) for p in ("weight", "bias")}
    rules = pasted(keys, leaves)
    assert sorted(rules) == ["h.{l}.norm.beta -> norm.bias", "h.{l}.norm.gamma -> norm.weight"]
    assert plan(keys, leaves, rules).ok


def test_moving_statistics():
    keys = {"bn.moving_mean": (4,), "bn.moving_variance": (4,), "bn.scale": (4,), "bn.offset": (4,)}
    leaves = {"bn.running_mean": (4,), "bn.running_var": (4,), "bn.weight": (4,), "bn.bias": (4,)}
    rules = pasted(keys, leaves)
    assert sorted(rules) == [
        "bn.moving_mean -> bn.running_mean",
        "bn.moving_variance -> bn.running_var",
        "bn.offset -> bn.bias",
        "bn.scale -> bn.weight",
    ]


def test_one_prefix_is_one_rule_and_rules_of_two_stand_together():
    leaves = {f"blocks.{n}.{m}.w": (3,) for n in range(2) for m in "ab"} | {"out.w": (3,)}
    keys = {f"_orig_mod.{leaf}": shape for leaf, shape in leaves.items()}
    assert said(keys, leaves) == [
        "did you mean '_orig_mod.blocks.{0..1}.a.w' (unused, same shapes)?",
        'if so, one rule says it for 5 leaves: "_orig_mod.** -> **"',
    ]
    inside = {
        key.replace("blocks.0", "blocks.0._orig_mod").replace("blocks.1", "blocks.1._orig_mod"): s
        for key, s in keys.items()
    }
    rules = pasted(inside, leaves)
    assert rules == ["_orig_mod.blocks.{l}._orig_mod.** -> blocks.{l}.**", "_orig_mod.out.w -> out.w"]
    assert plan(inside, leaves, rules).ok


def test_two_towers_that_fit_equally_are_no_rule():
    leaves = {f"net.{m}.w": (3, 2) for m in ("first", "second")}
    keys = {f"{tower}.{m}.w": (3, 2) for tower in ("one", "two") for m in ("first", "second")}
    assert pasted(keys, leaves) == []


def test_q_is_not_k():
    assert said({"attn.k_proj.weight": (4, 4)}, {"attn.q.weight": (4, 4)}) == []
    keys, leaves = {"attn.query.weight": (4, 4)}, {"attn.q.weight": (4, 4)}
    assert pasted(keys, leaves) == ["attn.query.weight -> attn.q.weight"]


def test_numbers_are_ranks():
    leaves = {"conv1.weight": (3,), "conv2.weight": (3,)}
    rules = pasted({"conv_0.weight": (3,), "conv_1.weight": (3,)}, leaves)
    assert rules == ["conv_0.weight -> conv1.weight", "conv_1.weight -> conv2.weight"]
    assert pasted({"conv_1.weight": (3,)}, leaves) == []  # which of the two it is, nothing tells


def test_a_dtype_that_is_not_cast_is_no_rule():
    leaves = {"a.q.weight": (4, 3)}
    for dtype, rules in (("i8", []), ("f2", ["a.query.weight -> a.q.weight"])):
        keys: dict[str, tuple[Any, ...]] = {"a.query.weight": (np.dtype(dtype), 4, 3)}
        assert pasted(keys, leaves) == rules


def test_what_shapes_tell_is_told_with_axes():
    for own, to, expected in (
        ((3, 4), (4, 3), ["x.query.kernel [o i] -> x.q.weight [i o]"]),
        ((4,), (4, 1, 1), ["x.query.kernel [o] -> x.q.weight [o 1 1]"]),
    ):
        keys, leaves = {"x.query.kernel": own}, {"x.q.weight": to}
        rules = pasted(keys, leaves)
        assert rules == expected
        assert plan(keys, leaves, rules).ok
    stacked = {f"h.{n}.x.query.kernel": (3, 4) for n in range(2)}
    assert pasted(stacked, {"h.x.q.weight": (2, 4, 3)}) == ["h.{l}.x.query.kernel [o i] -> h.x.q.weight [l i o]"]


def test_a_square_that_may_be_transposed_is_no_rule():
    assert pasted({"x.query.kernel": (4, 4)}, {"x.q.weight": (4, 4)}) == []
    assert pasted({"x.query.weight": (4, 4)}, {"x.q.weight": (4, 4)}) == ["x.query.weight -> x.q.weight"]
    keys = {"x.query.weight": (4, 4), "x.up_proj.weight": (3, 4)}  # what the one is, the other is, too
    assert pasted(keys, {"x.q.weight": (4, 4), "x.up.weight": (4, 3)}) == [
        "x.query.weight [o i] -> x.q.weight [i o]",
        "x.up_proj.weight [o i] -> x.up.weight [i o]",
    ]


def test_a_key_that_a_rule_took_comes_first():
    keys, leaves = {"bert.attn.query.w": (3,)}, {"attn.q.w": (3,)}
    assert said(keys, leaves, ["bert.** -> z.**"]) == [
        "did you mean 'bert.attn.query.w' (unused, same shape)?",
        'if so, the rule is "bert.attn.query.w -> attn.q.w", before all others',
    ]
    assert plan(keys, leaves, ["bert.attn.query.w -> attn.q.w", "bert.** -> z.**"]).ok
