"""Rules without axes onto a layout's names: they become the layout's rules, at its places in the model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bridge.mapping.arrays import Numbers
from bridge.mapping.desugar import Desugar, stacked_columns
from bridge.mapping.equation import Arrival, ConcreteRule, Dropped, KeyRun, Landed, LeafEquation, TermPosition
from bridge.mapping.landing import Port
from bridge.mapping.layout_spelling import LayoutSpelling
from bridge.mapping.pattern import Column
from bridge.mapping.spelling import dropping_variants
from bridge.rules.options import Options
from bridge.rules.rule import Rule
from bridge.rules.syntax import Axis, Side


def by_layout(
    desugar: Desugar, arrival: Arrival, landed: Landed, port: Port, placed: Numbers, stacks: Sequence[Column]
) -> None:
    """A rule without axes onto a layout's name: the layout's rule, at its places in the model."""
    assert desugar.names is not None
    bound, user, rule = arrival.bound, arrival.bound.rule, port.rule
    if rule.leaf is None:
        zeros = rule.zeros
        # What is told of a key in a list that is mixed is the first of several rules.
        desugar.drops.append(Dropped(bound, landed.rows.ids, lambda: dropping_variants(arrival, zeros=zeros)[0], zeros))
        desugar.concrete.append(ConcreteRule(bound.number, lambda: dropping_variants(arrival, zeros=zeros)))
        return
    if not _has_axes_of(desugar, arrival, landed, port, int(placed[0])):
        return
    tie = user.tie or port.tied_to is not None
    apart = bound.number if tie else None, bound.number if len(user.keys) > 1 else None
    key = ("layout", rule, port.tied_to is not None, *apart, user.copy, user.scale, user.add, len(stacks))
    equation = desugar.equations.get(key)
    if equation is None:
        spelling = desugar.spellings[key] = LayoutSpelling(port.rule, user, desugar.table, tie=tie)
        terms, scale, add = (
            len(rule.keys) * len(user.keys),
            rule.scale * user.scale,
            rule.scale * user.add + rule.add,
        )
        options = Options((), scale, add, rule.flip, tie, user.copy)

        def texts() -> Sequence[str]:
            return desugar.extended(key, spelling.texts())

        equation = desugar.equations[key] = LeafEquation(rule, len(stacks), terms, options, texts)
        desugar.concrete.append(ConcreteRule(bound.number, texts))
    desugar.spellings[key].arrive(landed.side, port, arrival)
    for number in dict.fromkeys(placed.tolist()):
        if number not in equation.others:
            equation.others[number] = desugar.names.filled_by(number, rule)
    leaves = np.array([equation.others[number][port.branch] for number in placed.tolist()], np.intp)
    run = KeyRun(bound, landed.side, landed.rows.ids, placed, leaves, stacked_columns(stacks))
    equation.arrive(TermPosition(landed.side, port.side, port.branch), run)


def _has_axes_of(desugar: Desugar, arrival: Arrival, landed: Landed, port: Port, placed: int) -> bool:
    """Whether the keys have as many axes as this rule of a layout gives them; where no rule does, the first is meant.

    A layout may have several rules for one name and leaf, which differ in the axes of the key.
    """
    assert desugar.names is not None
    assert port.rule.leaf is not None
    others = [p for p in arrival.standing.ports if p._replace(rule=port.rule) == port and _same_leaf(p.rule, port.rule)]
    if len(others) < 2:
        return True
    leaf = desugar.names.filled_by(placed, port.rule)[port.branch]
    # What a leaf has more than its layer's axes are a stack's, and those that no index numbers are the key's too.
    more = len(desugar.names.table.spec(leaf).shape) - port.depth - _count(port.rule.leaf)
    shape = desugar.table.spec(int(landed.rows.ids[0])).shape
    meant = next((p for p in others if more + _count(p.rule.keys[p.side]) == len(shape)), others[0])
    return meant == port


def _same_leaf(one: Rule, other: Rule) -> bool:
    return one.leaf is not None and other.leaf is not None and one.leaf == other.leaf and len(one.keys) == 1


def _count(side: Side) -> int:
    """How many axes a side names, without the rest."""
    return sum(isinstance(axis, Axis) for axis in side.axes or ())
