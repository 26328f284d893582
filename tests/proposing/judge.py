"""A pair of checkpoint and model, and what a proposal for it is worth, leaf by leaf."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from bridge._text import template
from bridge.mapping.indexmap import IndexMap
from bridge.mapping.template import Spec, Template
from bridge.planning.plan import Plan, PlanRequest, make_plan
from bridge.rules.rule import Rule, rules_of
from tests.proposing.folded import Entry

_DTYPES = {"F32": "f4", "I64": "i8", "BOOL": "?", "U8": "u1", "BF16": "f4"}


def specs_of(entries: Sequence[Entry]) -> dict[str, Spec]:
    """Keys as a plan takes them."""
    known: dict[tuple[str, tuple[int, ...]], Spec] = {}
    return {e.name: known.setdefault((e.dtype, e.shape), Spec(np.dtype(_DTYPES[e.dtype]), e.shape)) for e in entries}


@dataclass
class Pair:
    """A checkpoint, a model, and the rules that a person would write."""

    name: str
    specs: Mapping[str, Spec]
    rules: tuple[Rule, ...]
    template: Template
    plan: Plan


def pair(name: str, entries: Sequence[Entry], rules: Any) -> Pair:
    """The model that the rules make of a checkpoint is the model; keys that they do not name are dropped."""
    specs, found = specs_of(entries), rules_of(rules)
    flat = make_plan(specs, None, PlanRequest(found), source=name)
    flat.check()
    template = Template(dict(flat.leaves), kind="dict")
    plan = make_plan(specs, template, PlanRequest(found), source=name)
    plan.check()
    return Pair(name, specs, found, template, plan)


def moves(plan: Plan) -> dict[str, frozenset[Any]]:
    """For each leaf which elements of which keys are which of its own."""
    found: dict[str, set[Any]] = {}
    for block in plan.blocks:
        if not block.tie:
            for row, leaf in enumerate(block.leaves):
                maps = ((key, _elements(index_map)) for key, index_map in block.maps(row))
                found.setdefault(leaf, set()).add((*maps, block.scale, block.add))
    return {leaf: frozenset(maps) for leaf, maps in found.items()}


def _elements(index_map: IndexMap) -> tuple[Any, ...]:
    """An index map without axes of one element, which move nothing, and whatever their order."""
    loops = sorted(tuple(loop) for loop in index_map.loops if loop.extent != 1)
    return index_map.key_start, index_map.leaf_start, *loops


class Verdict(NamedTuple):
    """How many leaves are what, how many rules it took, and how long."""

    right: int
    marked: int
    wrong_marked: int
    wrong: int
    unmatched: int
    open: int
    """Those that headers cannot decide, and that are marked."""
    rules: int
    persons: int
    seconds: float
    examples: tuple[str, ...]
    """Leaves that are wrong and not marked."""
    lost: tuple[str, ...]
    """Leaves that are marked, wrong or unmatched, with why."""

    @property
    def leaves(self) -> int:
        """All of them."""
        return self.right + self.marked + self.wrong_marked + self.wrong + self.unmatched


class Proposed(NamedTuple):
    """What was proposed: all rules, those that are certain, doubtful leaves with why, and how long it took."""

    rules: Sequence[Rule]
    certain: Sequence[Rule]
    doubtful: Mapping[str, str]
    seconds: float


def judged(made: Pair, proposed: Proposed) -> Verdict:
    """The verdict on a proposal, leaf by leaf: what a plan with its rules does, against what is right."""
    truth = moves(made.plan)
    whole, certain = (_followed(made, rules) for rules in (proposed.rules, proposed.certain))
    counts: Counter[str] = Counter()
    examples: list[str] = []
    lost: list[str] = []
    undecided = undecidable(made.plan)
    for leaf in made.template.leaves:
        doubt = proposed.doubtful.get(leaf)
        sure = leaf in certain and certain[leaf] != truth.get(leaf)
        if leaf not in whole and not sure:
            counts["unmatched"] += leaf in truth  # what nobody fills needs no proposal
            if leaf in truth:
                lost.append(f"{leaf}: unmatched")
        elif not sure and whole[leaf] == truth.get(leaf):
            counts["right" if doubt is None else "marked"] += 1
            if doubt is not None:
                counts["open"] += leaf in undecided
                lost.append(f"{leaf}: right, marked: {doubt}")
        else:
            wrong = doubt is None or sure
            counts["wrong" if wrong else "wrong_marked"] += 1
            counts["open"] += not wrong and leaf in undecided
            found = certain[leaf] if sure else whole[leaf]
            text = f"{leaf}: {_difference(found, truth.get(leaf, frozenset()))}" + (
                f"; marked: {doubt}" if doubt else ""
            )
            (examples if wrong else lost).append(text)
    return Verdict(
        right=counts["right"],
        marked=counts["marked"],
        wrong_marked=counts["wrong_marked"],
        wrong=counts["wrong"],
        unmatched=counts["unmatched"],
        open=counts["open"],
        rules=len(proposed.rules),
        persons=len(made.rules),
        seconds=proposed.seconds,
        examples=(*examples,),
        lost=(*lost,),
    )


def undecidable(plan: Plan) -> set[str]:
    """Leaves of which headers do not tell all: parts of fused arrays, arrays that a transposition leaves in shape, and
    layers that take turns with others.
    """
    found: set[str] = set()
    families: dict[str, dict[str, set[tuple[int, ...]]]] = {}
    for block in plan.blocks:
        for row, leaf in enumerate(block.leaves):
            for key, index_map in block.maps(row):
                text, numbers = template(key)
                families.setdefault(leaf, {}).setdefault(text, set()).add(numbers)
                extents = [extent for extent in index_map.key_shape if extent > 1]
                if not index_map.whole_key or len({*extents}) < len(extents):
                    found.add(leaf)
    found |= {leaf for leaf, texts in families.items() if len(texts) > 1}
    return found | {leaf for leaf, texts in families.items() if any(map(_apart, texts.values()))}


def _apart(numbers: set[tuple[int, ...]]) -> bool:
    """Whether between numbers others are left out."""
    return any(max(column) - min(column) >= len(set(column)) for column in zip(*numbers, strict=True))


def _followed(made: Pair, rules: Sequence[Rule]) -> dict[str, frozenset[Any]]:
    """What a plan with these rules fills, leaf by leaf, but for what is of another shape or not whole."""
    plan = make_plan(made.specs, made.template, PlanRequest(tuple(rules)), source=made.name)
    bad = {problem.name for problem in (*plan.problems.mismatched, *plan.problems.missing)}
    return {leaf: found for leaf, found in moves(plan).items() if leaf not in bad}


def _difference(found: frozenset[Any], truth: frozenset[Any]) -> str:
    """What is wrong with a leaf."""
    own, should = ({key for maps in side for key, _ in maps[:-2]} for side in (found, truth))
    if own == should:
        return f"{min(own)} in another order of its axes"
    return f"is {min(own)}, should be {min(should, default='nothing')}"
