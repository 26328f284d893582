"""How a printed plan shows what its rules do: axes where more than a copy happens, flips, layouts set aside."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from bridge._errors import PlanError
from bridge._text import template
from bridge.mapping.indexmap import IndexMap
from bridge.mapping.names import family_text
from bridge.mapping.pattern import MARK, NamePattern, matches
from bridge.rules.rule import Rule
from bridge.rules.syntax import Axes, Axis, Index, JoinedParts

if TYPE_CHECKING:
    from bridge.mapping.block import Block
    from bridge.planning.plan import Plan


class Shown(NamedTuple):
    """The axes of a key and of its leaf, ` [i o]`, empty where the tensor is copied as it is; and what else happens."""

    key: str = ""
    leaf: str = ""
    notes: tuple[str, ...] = ()


class ShownAxes:
    """The axes that the concrete rules of a plan give to keys and leaves."""

    def __init__(self, plan: Plan) -> None:
        self.rules: dict[str | None, list[tuple[Rule, int, NamePattern, NamePattern]]] = {}
        for rule in _rules(plan):
            if rule.leaf is not None and rule.leaf.axes is not None:
                leaf = NamePattern(rule.leaf.name)
                for side, key in enumerate(rule.keys):
                    text = family_text(key.name)
                    family = None if text is None else text.replace(MARK, "{}")
                    self.rules.setdefault(family, []).append((rule, side, NamePattern(key.name), leaf))
        self.aside = plan.set_aside
        if not self.aside and any(rule.leaf is not None and rule.leaf.axes is not None for rule in plan.request.rules):
            from bridge.planning.set_aside import set_aside  # layouts are looked at only where one may be set aside

            self.aside = set_aside(plan)

    def of(self, block: Block, key: str, leaf: str) -> Shown:
        """What is shown of one row of a block."""
        aside = (f"{self.aside[leaf]}'s layout is switched off",) if leaf in self.aside else ()
        found = self.rule(key, leaf) if self.rules else None
        if found is None:
            return Shown(notes=aside)
        rule, side = found
        assert rule.leaf is not None
        copied = all(_is_copy(each.index_map) for each in block.terms)
        if copied and not aside and not _selects(rule.leaf.axes or ()):
            return Shown()
        inner = _composed((*(rule.keys[side].axes or ()), *(rule.leaf.axes or ())))
        sizes = tuple(f"{name}={size}" for name, size in rule.sizes if name in inner)
        flipped = (f"flipped along {' '.join(rule.flip)}",) if rule.flip else ()
        return Shown(_spelled(rule.keys[side].axes), _spelled(rule.leaf.axes), (*sizes, *flipped, *aside))

    def rule(self, key: str, leaf: str) -> tuple[Rule, int] | None:
        """The concrete rule that brings a key to a leaf, and which of its keys it is."""
        for family in (template(key)[0], None):
            for rule, side, of_key, of_leaf in self.rules.get(family, ()):
                sizes = dict(rule.sizes)
                if matches(of_key, sizes, key) and matches(of_leaf, sizes, leaf):
                    return rule, side
        return None


def _rules(plan: Plan) -> Iterator[Rule]:
    """The concrete rules of a plan, as far as they can be spelled."""
    try:
        yield from plan.rules
    except PlanError:
        return  # parts of several widths, which no rule can say


def _is_copy(index_map: IndexMap) -> bool:
    """Whether a tensor lies in its leaf as it is, at one place of a stack."""
    depth = len(index_map.leaf_shape) - len(index_map.key_shape)
    if depth < 0 or index_map.leaf_shape[depth:] != index_map.key_shape or not index_map.whole_key:
        return False
    loops = [loop for loop in index_map.loops if loop.extent != 1]
    return all((a.leaf_axis, a.key_step, a.leaf_step) == (a.key_axis + depth, 1, 1) for a in loops)


def _selects(axes: Axes) -> bool:
    """Whether axes name a place, or a part of an axis."""
    factors = [factor for axis in axes if isinstance(axis, Axis) for factor in axis.factors]
    return any(isinstance(factor, Index) and factor.selection is not None for factor in factors)


def _composed(axes: Axes) -> set[str]:
    """The names in axes of several factors: shapes do not show how wide these are."""
    factors = [f for axis in axes if isinstance(axis, Axis) and len(axis.factors) > 1 for f in axis.factors]
    names = {factor.name for factor in factors if isinstance(factor, Index)}
    return names.union(*(factor.labels for factor in factors if isinstance(factor, JoinedParts)))


def _spelled(axes: Axes | None) -> str:
    return "" if axes is None else f" [{' '.join(map(str, axes))}]"
