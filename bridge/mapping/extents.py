"""Extents of keys that the leaves of a concrete rule do not tell: as options, they make it save what it loads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from bridge._errors import RuleError
from bridge.mapping.arrays import ArrayTable, Shape
from bridge.mapping.equation import LeafEquation, Leaves
from bridge.mapping.solve import Extents, RuleAxes, ShapeConflict, SideBranch, solve
from bridge.rules.rule import Rule


def with_extents(texts: Iterable[str], equation: LeafEquation, keys: ArrayTable, leaves: Leaves) -> list[str]:
    """The texts of an equation's concrete rules, each with the extents that it needs to be read from its leaf."""
    shapes = _shapes(equation, keys, leaves)
    return list(texts) if shapes is None else [_with_extents(text, *shapes) for text in texts]


SideShapes = Mapping[SideBranch, Shape]


def _shapes(equation: LeafEquation, keys: ArrayTable, leaves: Leaves) -> tuple[SideShapes, SideShapes] | None:
    """The shapes of keys, by side and branch, and of leaves, by branch; `None` where several are different."""
    of_keys: dict[SideBranch, Shape] = {}
    of_leaves: dict[SideBranch, Shape] = {}
    for position, runs in equation.runs.items():
        for run in runs:
            kinds: list[int] = np.unique(keys.kinds[run.ids]).tolist()
            numbers: list[int] = np.unique(run.leaves).tolist()
            shapes, filled = {keys.specs[kind].shape for kind in kinds}, {leaves.shape(leaf) for leaf in numbers}
            if len(shapes) != 1 or len(filled) != 1 or (leaf := filled.pop()) is None:
                return None
            shape, place = shapes.pop(), (position.side, position.branch)
            if of_keys.setdefault(place, shape) != shape or of_leaves.setdefault((-1, position.branch), leaf) != leaf:
                return None
    return of_keys, of_leaves


def _with_extents(text: str, of_keys: SideShapes, of_leaves: SideShapes) -> str:
    try:
        rule = Rule(text)
    except RuleError:  # of a split onto copies that share their leaves a report has one branch
        return text
    if rule.leaf is None or rule.leaf.axes is None:
        return text
    rule_axes, leaf = RuleAxes.of(rule), len(rule.keys)
    known = {(leaf, branch): shape for (_, branch), shape in of_leaves.items()}
    try:
        extents, rests = solve(rule_axes, known)
        if all(extents.shape(place, rests.get(place[1])) is not None for place in of_keys):
            return text
        missing = extents.unsolved()
        extents, _ = solve(rule_axes, {**known, **of_keys})
    except ShapeConflict:
        return text  # other rules of the same equation have these keys
    sizes = {name: size for name in missing if (size := _size(name, extents)) is not None}
    return str(Rule(text, **{name: size for name, size in sizes.items() if name not in dict(rule.sizes)}))


def _size(name: str, extents: Extents) -> int | None:
    """The number that an option of this name gives: an axis before selecting, or a part."""
    for side in range(len(extents.rule_axes.sides)):
        if (whole := extents.known.get(f"{name}@{side}")) is not None:
            return whole
    for number, pair in enumerate(extents.rule_axes.pairing):
        for labels in pair.labels:
            if name in labels:
                return extents.known.get(f"|{number}:{labels.index(name)}")
    return extents.known.get(name)
