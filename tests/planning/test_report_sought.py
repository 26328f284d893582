"""Which key a report says was looked for: the rules read backwards, as the checkpoint would spell them."""

from __future__ import annotations

import re
from pathlib import Path

import equinox as eqx
import jax
import numpy as np
import pytest

import bridge
from bridge.mapping.template import PlacedLayout
from bridge.rules.rule import Rule
from tests.planning.reports import Shapes, plan, report
from tests.save.files import write


def absent(keys: Shapes, leaves: Shapes, *rules: str, **more: object) -> list[str]:
    """What the report says of each missing leaf."""
    lines = report(keys, leaves, rules, **more).splitlines()
    found = [line.removeprefix("  missing     ") for line in lines if line.startswith("  missing")]
    return [line.rpartition("   float32")[0] for line in found]


def test_the_key_of_a_rule_that_matched_nothing_and_its_number():
    keys, leaves = {"emb.w": (4, 3)}, {"embed.w": (4, 3), "head.w": (4, 3)}
    rules = "emb.w -> embed.w", "lm_head.w -> head.w"
    assert absent(keys, leaves, *rules) == ["head.w   no key 'lm_head.w' (rule 2)"]
    assert plan({**keys, "lm_head.w": (4, 3)}, leaves, rules).ok


def test_wildcards_and_choices_are_written_out():
    leaves = {f"h.{n}.{x}.w": (3,) for n in range(3) for x in "qk"}
    keys = {f"layer.{n}.{x}_proj.w": (3,) for n in range(3) for x in "qk" if (n, x) != (1, "k")}
    for rule in ("layer.{l}.*_proj.** -> h.{l}.*.**", "layer.{l}.{q_proj|k_proj}.w -> h.{l}.{q|k}.w"):
        assert absent(keys, leaves, rule) == ["h.1.k.w   no key 'layer.1.k_proj.w'"]


def test_layers_that_are_not_there():
    rule = "model.{l}.*_proj.** -> h.*.**"
    assert absent({"model.0.up_proj.w": (3,)}, {"h.up.w": (2, 3)}, rule) == ["h.up.w[1]   no key 'model.1.up_proj.w'"]
    found = absent({"model.2.up_proj.w": (3,)}, {"h.up.w": (4, 3)}, rule)
    assert found == ["h.up.w[0..1,3]   no key 'model.{0..1,3}.up_proj.w'"]


def test_a_list_of_which_one_layer_is_there_is_no_copy():
    found = absent({"h.1.w": (3,)}, {"x.0.w": (3,), "x.1.w": (3,)}, "h.{l[1:]}.w -> x.{l}.w")
    assert found == ["x.1.w   no key 'h.2.w'"]


def test_axes_in_any_order():
    keys = {"h.0.w": (3, 4), "h.2.w": (3, 4)}
    (found,) = absent(keys, {"w": (4, 3, 3)}, "h.{l}.w [i o] -> w [o l i]")
    assert found.endswith("no key 'h.1.w'"), found


def test_a_part_of_a_join():
    leaves = {"qk.w": (4, 3)}
    (found,) = absent({"q.w": (2, 3)}, leaves, "{q|k}.w [_ m] -> qk.w [(q|k) m] ; q=2")
    assert found == "qk.w[2:4]   no key 'k.w'"


def test_the_most_particular_rule_looked_for_it():
    leaves = {"a.w": (3,), "head.w": (3,)}
    found = absent({"m.a.w": (3,)}, leaves, "m.** -> **", "lm_head.w -> head.w")
    assert found == ["head.w   no key 'lm_head.w' (rule 2)"]
    assert absent({"m.a.w": (3,)}, leaves, "m.** -> **") == ["head.w   no key 'm.head.w'"]


def test_other_spellings_are_not_what_was_looked_for():
    leaves = {"a.w": (3,), "b.w": (3,)}
    found = absent({"m.a.w": (3,)}, leaves, "old.b.w -> b.w ; alt=true", "m.** -> **")
    assert found == ["b.w   no key 'm.b.w'"]


def test_rules_that_cannot_be_read_backwards_are_passed_over():
    assert absent({"h.0.w": (3,)}, {"last": (3,), "x": (3,)}, "h.{l[-1]}.w -> last", "g.{l[-1]}.w -> x") == [
        "x   no key 'x'"
    ]


def test_the_key_of_a_layout():
    cell = PlacedLayout("cell", (Rule("bias_ih [x] + bias_hh [x] -> bias [x]"),))
    keys, leaves = {"rnn.bias_ih": (8,)}, {"cell.bias": (8,)}
    assert absent(keys, leaves, "rnn.** -> cell.**", placed=(cell,)) == ["cell.bias   no key 'rnn.bias_hh'"]


@pytest.mark.parametrize("rules", [["rnn.bias_ih_l0 -> bias"], ["rnn.bias_ih_l0 -> bias", "rnn.bias_hh_l0 -> bias"]])
def test_the_advice_for_two_biases_ends_in_their_sum(tmp_path: Path, rules: list[str]):
    named = ["rnn.weight_ih_l0 -> weight_ih", "rnn.weight_hh_l0 -> weight_hh"]
    tensors = {f"rnn.weight_{name}_l0": np.ones((12, 3), np.float32) for name in ("ih", "hh")}
    tensors |= {f"rnn.bias_{name}_l0": np.full(12, n, np.float32) for n, name in enumerate(("ih", "hh"), 1)}
    source, like = write(tmp_path / "x.safetensors", tensors), eqx.nn.LSTMCell(3, 3, key=jax.random.key(0))
    told = str(bridge.plan(source, like, [*named, *rules]))
    (advice,) = re.findall(r'write "(.*)" in place of', told)
    assert (bridge.load(source, like, [*named, advice]).bias == 3).all()
