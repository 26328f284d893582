"""Rules judged by plain numpy: tensors in, leaves out, and the way back, element by element."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bridge.mapping.indexmap import IndexMap
from bridge.mapping.template import Spec, Template
from bridge.planning.plan import Plan, PlanRequest, make_plan
from bridge.rules.rule import Rule, rules_of

Shape = tuple[int, ...]
Arrays = dict[str, np.ndarray]

HOLE = -1
"""What an element holds that nothing has written."""


@dataclass(frozen=True)
class Case:
    """`shapes` of the keys, `rules` in any form that `bridge.plan` takes, and the leaves as numpy makes them of the tensors."""

    title: str
    shapes: Mapping[str, Shape]
    rules: Any
    leaves: Callable[[Arrays], Arrays]
    invertible: bool = True

    def __str__(self) -> str:
        return self.title


def tensors(shapes: Mapping[str, Shape]) -> Arrays:
    """Tensors of these shapes in which no number stands twice."""
    made: Arrays = {}
    start = 1
    for key, shape in shapes.items():
        count = int(np.prod(shape, dtype=int))
        made[key] = np.arange(start, start + count, dtype=np.int32).reshape(shape)
        start += count
    return made


def planned(arrays: Mapping[str, np.ndarray], leaves: Mapping[str, np.ndarray] | Template | None, rules: Any) -> Plan:
    """The plan for these tensors and a model with these leaves."""
    model = leaves
    if isinstance(leaves, Mapping):
        model = Template({name: Spec(leaf.dtype, leaf.shape) for name, leaf in leaves.items()})
    assert model is None or isinstance(model, Template)
    specs = {key: Spec(array.dtype, array.shape) for key, array in arrays.items()}
    return make_plan(specs, model, PlanRequest(rules_of(rules)), source="ckpt/")


def elements(index_map: IndexMap) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
    """The indices into the tensor, and the same elements' indices into the leaf."""
    extents = [loop.extent for loop in index_map.loops]
    steps = np.indices(extents) if extents else np.zeros((0,), int)
    key = [np.full(extents, start) for start in index_map.key_start]
    leaf = [np.full(extents, start) for start in index_map.leaf_start]
    for step, loop in zip(steps, index_map.loops, strict=True):
        key[loop.key_axis] = key[loop.key_axis] + step * loop.key_step
        leaf[loop.leaf_axis] = leaf[loop.leaf_axis] + step * loop.leaf_step
    return tuple(key), tuple(leaf)


def loaded(plan: Plan, arrays: Mapping[str, np.ndarray]) -> Arrays:
    """The leaves that a plan makes of tensors: what its index maps mean, and nothing faster."""
    leaves = {name: np.full(spec.shape, HOLE, spec.dtype) for name, spec in plan.leaves.items()}
    for block in plan.blocks:
        for row, leaf in enumerate(block.leaves):
            total: np.ndarray | None = None
            for key, index_map in block.maps(row):
                into = np.zeros_like(leaves[leaf])
                source, target = elements(index_map)
                into[target] = arrays[key][source]
                total = into if total is None else total + into
                written = target
            assert total is not None
            if block.tie:
                assert (leaves[leaf][written] == total[written]).all()
                continue
            assert (leaves[leaf][written] == HOLE).all(), "written twice"
            leaves[leaf][written] = total[written] * block.scale + block.add
    return leaves


def saved(plan: Plan, leaves: Mapping[str, np.ndarray]) -> Arrays:
    """The tensors that a plan reads, made of the leaves."""
    arrays = {key: np.full(spec.shape, HOLE, spec.dtype) for key, spec in plan.specs.items()}
    for block in plan.blocks:
        assert not block.changes_values
        for row, leaf in enumerate(block.leaves):
            for key, index_map in block.maps(row):
                source, target = elements(index_map)
                arrays[key][source] = leaves[leaf][target]
    return arrays


def same(got: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> None:
    """Fail unless both hold the same arrays."""
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(got[name], array, err_msg=name, strict=True)


def judge(case: Case) -> Plan:
    """Load and save by the plan of a case, and plan again by the rules that it came to."""
    arrays = tensors(case.shapes)
    expected = {name: np.asarray(leaf) for name, leaf in case.leaves(arrays).items()}
    plan = planned(arrays, expected, case.rules)
    assert plan.ok, str(plan)
    same(loaded(plan, arrays), expected)
    if case.invertible:
        same(saved(plan, expected), arrays)
    again(plan, arrays, expected)
    return plan


def again(plan: Plan, arrays: Arrays, leaves: Mapping[str, np.ndarray] | Template | None) -> None:
    """A plan's own rules make the same plan, and read back."""
    for rule in plan.rules:
        assert Rule(str(rule)) == rule
        assert str(Rule(str(rule))) == str(rule)
    second = planned(arrays, leaves, plan.rules)
    assert second == plan, f"{second}\n\n{plan}\n{[*map(str, plan.rules)]}"
    assert second.rules == plan.rules
