"""Several rules that name one leaf, saved without the plan that knows which of them loaded it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
import pytest

import bridge
from tests.save.files import bits, finite, read, write

W, V = finite((4,)), finite((4,), seed=1)
ROWS = finite((3, 4), seed=2)

EQUAL: dict[str, tuple[Any, list[str], tuple[str, str]]] = {
    "two names": ({"x": W}, ["a.w -> x", "b.w -> x"], ("a.w", "b.w")),
    "two folders": (
        {"resample": {"w": W}},
        ["up.downsamplers.0.** -> resample.**", "up.upsamplers.0.** -> resample.**"],
        ("up.downsamplers.0.w", "up.upsamplers.0.w"),
    ),
    "with a prefix and without": ({"x": {"w": W}}, ["net.** -> **", "** -> **"], ("net.x.w", "x.w")),
    "the general one first": ({"x": {"w": W}}, ["a.** -> x.**", "b -> x.w"], ("a.w", "b")),
    "neither more general": (
        {"x": {"b": W, "c": V}},
        ["k.{a|b} -> x.{a|b}", "l.{b|c} -> x.{b|c}"],
        ("k.b", "l.b"),
    ),
    "lists": ({"x": [W, V]}, ["a.{l}.w -> x.{l}", "b.{l}.w -> x.{l}"], ("a.0.w", "b.0.w")),
    "stacks": ({"x": ROWS}, ["a.{l}.w -> x.{l}", "b.{l}.w -> x"], ("a.0.w", "b.0.w")),
    "one of a list": ({"x": [W, V]}, ["a.{l} -> x.{l}", "b -> x.1"], ("a.1", "b")),
    "a stack, or layers": ({"x": ROWS}, ["a -> x", "b.{l} -> x.{l}"], ("a", "b.0")),
    "axes": ({"x": ROWS}, ["a [i o] -> x [o i]", "b [i o] -> x [i o]"], ("a", "b")),
    "the same part": ({"x": W}, ["a [n] -> x [n[:4]] ; n=4", "b [n] -> x [n[:4]] ; n=4"], ("a", "b")),
    "whole, or in parts": ({"x": W}, ["{q|k} [_] -> x [(q|k)] ; q=2, k=2", "qk -> x"], ("q", "qk")),
    "two names of a layer's leaf": (
        {"cell": eqx.nn.LSTMCell(2, 3, use_bias=False, key=jax.random.key(0))},
        ["a -> cell.weight_ih", "b -> cell.weight_ih_l0", "c -> cell.weight_hh"],
        ("a", "b"),
    ),
}


@pytest.mark.parametrize("case", EQUAL)
def test_two_equally_particular_rules_are_not_decided_by_their_order(tmp_path: Path, case: str):
    model, rules, keys = EQUAL[case]
    with pytest.raises(bridge.PlanError) as caught:
        bridge.save(model, tmp_path / "out", rules)
    assert all(f"'{key}'" in str(caught.value) for key in keys), str(caught.value)
    assert "Save it by the plan that loaded it, or mark the rule that is only for reading with alt=true" in str(
        caught.value
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("key", ["a.w", "b.w"])
def test_a_plan_knows_which_it_was(tmp_path: Path, key: str):
    rules, source = ["a.w -> x", "b.w -> x"], write(tmp_path / "in.safetensors", {key: W})
    plan = bridge.plan(source, {"x": W}, rules)
    for n, one in enumerate((plan, bridge.Plan.from_json(plan.to_json()))):
        bridge.save(bridge.load(source, {"x": W}, rules), tmp_path / f"{n}.safetensors", one)
        assert bridge.diff(tmp_path / f"{n}.safetensors", source).equal


@pytest.mark.parametrize("kept", [0, 1])
def test_leaving_one_out_decides(tmp_path: Path, kept: int):
    model, rules, keys = EQUAL["two folders"]
    bridge.save(model, tmp_path, [rules[kept]])
    assert read(tmp_path) == {keys[kept]: bits(W)}


DECIDED: dict[str, tuple[Any, list[str], dict[str, np.ndarray]]] = {
    "a wildcard below a name": ({"x": {"b": W, "c": V}}, ["k -> x.b", "a.** -> x.**"], {"k": W, "a.c": V}),
    "a wildcard below a wildcard": (
        {"x": {"b": {"w": W}, "c": {"w": V}}},
        ["k.** -> x.b.**", "a.** -> x.**", "net.** -> **"],
        {"k.w": W, "a.c.w": V},
    ),
    "a segment below a name": ({"x": {"b": W, "c": V}}, ["k -> x.b", "a.* -> x.*"], {"k": W, "a.c": V}),
    "segments below one": ({"x": {"b": W, "c": {"d": V}}}, ["a.* -> x.*", "b.** -> x.**"], {"a.b": W, "b.c.d": V}),
    "a choice of more": (
        {"x": {"b": W, "c": V}},
        ["k.{a|b} -> x.{a|b}", "l.{a|b|c} -> x.{a|b|c}"],
        {"k.b": W, "l.c": V},
    ),
    "an index below a number": ({"x": [W, V]}, ["k -> x.1", "a.{l} -> x.{l}"], {"a.0": W, "k": V}),
    "a selection below all": (
        {"x": [W, V]},
        ["k.{l[1:]} -> x.{l[1:]}", "a.{l} -> x.{l}"],
        {"a.0": W, "k.1": V},
    ),
    "different places of a stack": (
        {"x": ROWS},
        ["k.{l[:1]} -> x.{l[:1]}", "a.{l[1:]} -> x.{l[1:]}"],
        {"k.0": ROWS[0], "a.1": ROWS[1], "a.2": ROWS[2]},
    ),
    "a stack": (
        {"x": {"w": ROWS}},
        ["k.{l} -> x.{l}.w", "a.{l}.** -> x.{l}.**"],
        {f"k.{n}": ROWS[n] for n in range(3)},
    ),
    "a dropped index": (
        {"x": {"w": ROWS}},
        ["k.{l} -> x.w", "a.{l}.** -> x.{l}.**"],
        {f"k.{n}": ROWS[n] for n in range(3)},
    ),
    "the same key": ({"x": ROWS}, ["a [i o] -> x [o i]", "{a|b} -> {x|y}"], {"a": np.ascontiguousarray(ROWS.T)}),
    "the same rule": ({"x": W}, ["a -> x", "a -> x"], {"a": W}),
    "a key that another rule would take": (
        {"x": W, "y": V},
        ["b.w -> y", "a -> x", "b.{v|w} -> {z|x}"],
        {"b.w": V, "a": W},
    ),
    "a tie": ({"x": W}, ["a -> x", "b -> x ; tie=true"], {"a": W, "b": W}),
    "a tie that comes first": ({"x": W}, ["b -> x ; tie=true", "a -> x"], {"a": W, "b": W}),
    "a copy": ({"x": W, "y": W}, ["a -> x ; copy=true", "a -> y"], {"a": W}),
    "the terms of a sum": (
        {"cell": {"bias": W}},
        ["a + b -> cell.bias", "** -> **"],
        {"a": W, "b": np.zeros_like(W)},
    ),
}


@pytest.mark.parametrize("case", DECIDED)
def test_the_more_particular_rule_goes_first(tmp_path: Path, case: str):
    model, rules, expected = DECIDED[case]
    bridge.save(model, tmp_path / "out", rules)
    assert read(tmp_path / "out") == {key: bits(np.ascontiguousarray(array)) for key, array in expected.items()}


def test_two_terms_of_a_layers_sum_are_no_rivals(tmp_path: Path):
    """`bias` of an LSTM is a sum of two of PyTorch's: a rule for each."""
    model = {"cell": eqx.nn.LSTMCell(2, 3, key=jax.random.key(0))}
    rules = ["i.{w|b} -> cell.{weight_ih|bias_ih}", "h.{w|b} -> cell.{weight_hh|bias_hh}"]
    bridge.save(model, tmp_path, rules)
    assert sorted(read(tmp_path)) == ["h.b", "h.w", "i.b", "i.w"]
    again = bridge.load(tmp_path, model, rules)
    assert all(bits(a) == bits(b) for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(model), strict=True))
