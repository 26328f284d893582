"""Saved keys that a plan did not read: new leaves under their names, and unread layers under the plan's rules."""

from __future__ import annotations

import os
from collections.abc import Container, Mapping, Sequence

import numpy as np

from bridge._errors import PlanError
from bridge._text import quote
from bridge.mapping.block import Block
from bridge.mapping.cover import spans
from bridge.mapping.pattern import NamePatterns
from bridge.mapping.problem import Missing
from bridge.mapping.template import Spec, Template
from bridge.planning.backwards import COUNTER, saved_specs
from bridge.planning.partly import Box, held_parts, is_padding
from bridge.planning.plan import Plan, PlanRequest, make_plan
from bridge.rules.rule import Rule

_ANY = NamePatterns.of("**")


class UnreadKeys:
    """The keys that a plan did not read, of leaves that it does not fill, or only in part.

    - `plan`, `blocks`: how a load would read them.
    - `stored`: for leaves that the plan fills in part, the dtype of their keys.
    - `unsaved`: the boxes of these leaves that no key holds.
    """

    def __init__(
        self, plan: Plan, blocks: Sequence[Block], stored: Mapping[str, np.dtype], unsaved: Mapping[str, Sequence[Box]]
    ) -> None:
        self.plan, self.blocks, self.stored, self.unsaved = plan, blocks, stored, unsaved

    @classmethod
    def of(
        cls,
        plan: Plan,
        template: Template,
        rules: tuple[Rule, ...],
        target: str | os.PathLike[str],
        named: set[str],
        left_out: frozenset[str],
    ) -> UnreadKeys:
        """Decide the keys. `named`: leaves that the plan mentions. `rules`: the caller's rules, if given.

        **Raises:** `PlanError` if the keys of a leaf cannot be decided.
        """
        partly = plan.partly.keys() - left_out
        if partly or plan.kept:
            # Layers to come go where the plan's rules say, and so does what a rule without a key speaks of.
            # What was dropped is no longer: a new head may have its name.
            known = [rule for rule in plan.rules if rule.leaf is not None or rule.zeros]
            rules = (*known, *(rules or filter(lambda rule: rule.leaf is not None, map(Rule, plan.idle))))
        own = planned(template, rules, target, named - partly, partly)
        stored = {leaf: plan.specs[key].dtype for leaf, key in _first_keys(plan, partly).items()}
        keys = frozenset(plan.keys)
        blocks = [_without(block, keys, partly) for block in own.blocks]
        unsaved = {name: holes for name, holes in own.partly.items() if name in partly}
        return cls(own, [block for block in blocks if len(block)], stored, unsaved)

    def check_apart(self, specs: Mapping[str, Spec]) -> None:
        """**Raises:** `PlanError` if a leaf beside the plan would be written under a key of the plan."""
        for block in self.blocks:
            for leaf, key in zip(block.leaves, block.terms[0].keys, strict=True):
                if key in specs:
                    raise PlanError(
                        f"leaf {quote(leaf)}",
                        f"would be saved as {quote(key)}, but the plan saves another leaf there",
                        f"Leave it out, leave_out={[leaf]}",
                    )


def planned(
    template: Template,
    rules: tuple[Rule, ...],
    target: str | os.PathLike[str],
    left_out: Container[str],
    partly: Container[str] = (),
) -> Plan:
    """The plan by which `rules` would read the keys that a save writes.

    No key holds padding. Keys may hold any part of the leaves in `partly`. **Raises:** `PlanError`.
    """
    specs = saved_specs(rules, template, left_out)
    request = PlanRequest(rules, allow_missing=_ANY)
    plan = make_plan(specs, template, request, source=str(target))
    lost = {problem.key for problem in plan.problems.unexpected if specs[problem.key] is COUNTER}
    if lost:  # by these rules PyTorch's layer is called otherwise than the others of its keys
        kept = {key: spec for key, spec in specs.items() if key not in lost}
        plan = make_plan(kept, template, request, source=str(target))
    missing = plan.problems.missing
    missing[:] = [problem for problem in missing if problem.name not in left_out]
    missing += [Missing(name, template.keys().get(name, name)) for name in plan.kept if name not in left_out]
    numbers = {name: number for number, name in enumerate(template.leaves) if name in plan.partly}
    parts = held_parts(list(numbers.values()), plan.blocks, len(template.leaves)) if numbers else {}
    for name, holes in plan.partly.items():
        if name not in left_out and name not in partly:
            shape, held = template.leaves[name].shape, parts[numbers[name]]
            missing += [Missing(name, None, spans(shape, hole)) for hole in holes if not is_padding(hole, held)]
    plan.check()
    return plan


def _without(block: Block, keys: Container[str], leaves: Container[str]) -> Block:
    """A block without the rows in which one of these keys fills one of these leaves."""
    pairs = zip(block.terms[0].keys, block.leaves, strict=True)
    return block.at(np.array([n for n, (key, leaf) in enumerate(pairs) if key not in keys or leaf not in leaves], int))


def _first_keys(plan: Plan, leaves: Container[str]) -> dict[str, str]:
    """For each of these leaves a key that fills it."""
    found: dict[str, str] = {}
    for block in plan.blocks:
        for leaf, key in zip(block.leaves, block.terms[0].keys, strict=True):
            if leaf in leaves:
                found.setdefault(leaf, key)
    return found
