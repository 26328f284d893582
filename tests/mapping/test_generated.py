"""Generated rules: each does what numpy does, both ways, and says so again in its own words."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import example, given

from bridge.rules.rule import Rule
from tests.mapping.oracle import again, loaded, planned, same, saved
from tests.mapping.strategies import Mapping, Side, mappings


@given(mappings())
@example(
    Mapping({"x": 2, "y": 3}, (2, 1), Side((), (("x", "_"), ("y",)), True), Side(("x",), (("y", "_"),), False), ("y",))
)
def test_a_rule_is_a_bijection(mapping: Mapping):
    tensors, leaves = mapping.tensors(), mapping.leaves()
    plan = planned(tensors, leaves, [mapping.rule()])
    assert plan.ok, f"{mapping.rule()}\n{plan}"
    same(loaded(plan, tensors), leaves)
    same(saved(plan, leaves), tensors)
    again(plan, tensors, leaves)


@given(mappings())
def test_the_way_back_is_the_sides_swapped(mapping: Mapping):
    tensors, leaves = mapping.tensors(), mapping.leaves()
    back = replace(mapping, key=mapping.leaf, leaf=mapping.key)
    swapped = {name.replace("b", "a", 1): array for name, array in leaves.items()}
    wanted = {name.replace("a", "b", 1): array for name, array in tensors.items()}
    plan = planned(swapped, wanted, [back.rule()])
    assert plan.ok, f"{back.rule()}\n{plan}"
    same(loaded(plan, swapped), wanted)


@given(mappings())
def test_two_spellings_of_a_mapping_give_equal_plans(mapping: Mapping):
    tensors, leaves = mapping.tensors(), mapping.leaves()
    plan = planned(tensors, leaves, [mapping.rule()])
    other = mapping.rule()
    for old, new in zip("xyzu", ("first", "second", "third", "fourth"), strict=True):
        for before in '{[( ,"':
            for after in '}]) ="':
                other = other.replace(f"{before}{old}{after}", f"{before}{new}{after}")
    options = other.partition(" ; ")
    shuffled = options[0] + (
        " ; " + ", ".join(reversed(options[2].split(", ")))
        if "flip" not in other and options[2]
        else options[1] + options[2]
    )
    assert planned(tensors, leaves, [shuffled]) == plan, shuffled
    one_by_one = {name: np.zeros_like(array) for name, array in leaves.items()}
    assert planned(tensors, one_by_one, plan.rules) == plan


@given(mappings())
def test_a_rule_reads_back(mapping: Mapping):
    rule = Rule(mapping.rule())
    assert Rule(str(rule)) == rule
    assert Rule(mapping.rule().replace(" ", "  ").replace("->", "\t->\n")) == rule


@given(mappings())
def test_without_a_model_the_rule_makes_the_leaves(mapping: Mapping):
    tensors, leaves = mapping.tensors(), mapping.leaves()
    plan = planned(tensors, None, [mapping.rule()])
    assert plan.ok, f"{mapping.rule()}\n{plan}"
    same(loaded(plan, tensors), leaves)
