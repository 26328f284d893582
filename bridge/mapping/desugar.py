"""Bound rules to equations: explicit rules, layouts and inference come to the same thing here.

A rule with axes speaks for itself. One without axes that lands on a leaf maps the tensor as it is; on a name of a
layout it becomes that layout's rule. Both directions of a mapping are desugared by this.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from bridge._text import quote
from bridge.mapping.arrays import Arrays, ArrayTable, Numbers
from bridge.mapping.bind import INFERENCE, RenamedKeys
from bridge.mapping.bound import BoundRule, NameRows
from bridge.mapping.equation import (
    Arrival,
    ConcreteRule,
    Dropped,
    KeyRun,
    Landed,
    LeafEquation,
    Leaves,
    TermPosition,
    stack_names,
)
from bridge.mapping.landing import (
    Landing,
    ModelNames,
    Standing,
    branch_name,
    family_of,
    kept_numbers,
    land,
    places,
    stack_numbers,
)
from bridge.mapping.pattern import Column, IndexColumns, formatted
from bridge.mapping.problem import Problems
from bridge.rules.options import Options
from bridge.rules.rule import Rule
from bridge.rules.syntax import Name

if TYPE_CHECKING:
    from bridge.mapping.layout_spelling import LayoutSpelling


class Desugar:
    """Makes equations of bound rules, for one checkpoint and one model.

    `lost` are keys sent to names that the model does not have, with what to say of it; `arrived` those that came to a
    leaf; `unclear` leaves that keys may be meant for where a name can be read in several ways.
    """

    def __init__(self, table: ArrayTable, names: ModelNames | None, problems: Problems) -> None:
        self.table, self.names, self.problems = table, names, problems
        self.leaves = Leaves(None if names is None else names.table)
        self.equations: dict[tuple[object, ...], LeafEquation] = {}
        self.spellings: dict[tuple[object, ...], LayoutSpelling] = {}
        self.concrete: list[ConcreteRule] = []
        self.drops: list[Dropped] = []
        self.lost: dict[int, str] = {}
        self.arrived = np.zeros(len(table), bool)
        self.unclear: set[str] = set()

    def add(self, bound: BoundRule) -> None:
        """Desugar one bound rule."""
        leaf = bound.rule.leaf
        if leaf is None:
            self.drop(bound)
        elif self.names is None:
            from bridge.mapping.derive import derive  # most loads have a model

            derive(self, bound, explicit=leaf.axes is not None)
        else:
            explicit = leaf.axes is not None
            landings = land(bound, self.names, self.table, explicit=explicit)
            if len(landings) > 1:
                from bridge.mapping.ambiguity import report  # only where there is something to report

                report(self, bound, landings, self.names, explicit=explicit)
            elif landings:
                self.place(bound, landings[0], self.names, explicit=explicit)
            else:
                for side, branch in bound.rows:
                    self.lose(bound, branch, bound.joined(side, branch), self.names)

    # Keys that come to no leaf

    def drop(self, bound: BoundRule) -> None:
        """A rule that drops its keys."""
        rule = bound.rule
        self.drops.append(Dropped(bound, bound.ids, lambda: str(rule), rule.zeros))
        self.concrete.append(ConcreteRule(bound.number, _dropping(bound)))

    def lose(self, bound: BoundRule, branch: int, rows: NameRows, names: ModelNames) -> None:
        """Remember keys that were sent to names that the model does not have."""
        reason, hints = _sent(bound.rule, str(bound.leaf)), names.model.hints
        sent = formatted(leaf_name(bound, branch), bound.sizes, rows.columns, len(rows.ids)) if hints else ()
        for row, key in enumerate(rows.ids.tolist()):
            self.lost.setdefault(key, hints.get(sent[row], reason) if hints else reason)

    def rename(self, renamed: RenamedKeys) -> None:
        """Keys that go one by one to the leaves that a rule names."""
        rule = renamed.rule
        hints = self.names.model.hints if self.names is not None else dict[str, str]()
        for key, name in renamed.lost.items():
            self.lost.setdefault(key, hints.get(name) or _sent(rule, name))
        if not renamed.keys:
            return
        keys, leaves = np.array(renamed.keys, np.intp), np.array(renamed.leaves, np.intp)
        names = Arrays(self.table, keys), Arrays(self.leaves.table, leaves)
        self.concrete.append(ConcreteRule(renamed.number, lambda: _renaming(rule, *names)))
        self.arrived[keys] = True
        self.equation(rule, 0, 1).arrive(TermPosition(0, 0, 0), KeyRun(None, 0, keys, leaves, leaves, {}))

    # Where there is a model

    def place(self, bound: BoundRule, landing: Landing, names: ModelNames, *, explicit: bool) -> None:
        """Bring the rows of a bound rule to the names of the model that they land on."""
        found: list[Landed] = []
        for side, branch in bound.rows:
            landed = self.landed(bound, landing, side, branch, names, explicit=explicit)
            missing = landed.names < 0
            if missing.any():
                self.lose(bound, branch, landed.rows.at(missing), names)
                landed = landed.at(~missing)
            self.arrived[landed.rows.ids] = True
            if len(landed.names):
                found.append(landed)
        standing = names.plain if explicit else names.standing
        kinds = [0] if found else []
        if len(names.kinds) > 1:
            kinds = _distinct([standing[one.names] for one in found])
        for kind in kinds:
            parts = found if len(kinds) == 1 else [one.at(standing[one.names] == kind) for one in found]
            self.part(
                bound, landing, names, names.kinds[kind], [p for p in parts if len(p.names)], whole=len(kinds) == 1
            )

    def landed(
        self, bound: BoundRule, landing: Landing, side: int, branch: int, names: ModelNames, *, explicit: bool
    ) -> Landed:
        """Where the rows of one side and branch land."""
        family, rows = family_of(bound, landing, branch, names.index(explicit=explicit)), bound.joined(side, branch)
        kept = kept_numbers(bound, landing, branch, rows)
        if family is not None and any(column is None for column in kept):
            from bridge.mapping.unstack import by_leaves

            segments = [s for n, s in enumerate(leaf_name(bound, branch).segments) if n not in landing]
            rows = by_leaves(bound, Name(tuple(segments)), rows, kept, family.numbers)
            kept = kept_numbers(bound, landing, branch, rows)
        known = [column for column in kept if column is not None]
        return Landed(side, branch, rows, known, places(known, family, len(rows.ids)))

    def part(
        self,
        bound: BoundRule,
        landing: Landing,
        names: ModelNames,
        standing: Standing,
        parts: Sequence[Landed],
        *,
        whole: bool,
    ) -> None:
        """The rows that land on names of one kind."""
        kept = [np.stack(part.kept, axis=1) for part in parts if part.kept]
        alike = standing.alike and all(port.tied_to is None for port in standing.ports)
        arrival = Arrival(bound, landing, standing, kept, whole and alike)
        explicit = bound.rule.leaf is not None and bound.rule.leaf.axes is not None
        if not standing.ports:
            self.concrete.append(ConcreteRule(bound.number, self.texts_of(arrival)))
        for part in parts:
            stacks = stack_numbers(bound, landing, part.side, part.rows)
            if standing.ports:
                from bridge.mapping.by_layout import by_layout  # many models have no layouts

                # A layout may read one leaf in several ways, which differ in how many of its axes are a stack's.
                ports = list(enumerate(standing.ports))
                for n, port in [each for each in ports if each[1].depth == len(stacks)] or ports:
                    placed = np.array([names.placed[name][n] for name in part.names.tolist()], np.intp)
                    by_layout(self, arrival, part, port, placed, stacks)
            elif explicit:
                self.explicit(arrival, part, names.leaves[part.names], stacks)
            elif standing.tied and not standing.alike:
                for name in np.unique(part.names):  # the leaf of several copies is compared with each
                    one = part.names == name
                    some = [column[one] for column in stacks]
                    self.plain(bound, part.at(one), names.leaves[part.names[one]], some, tie=True, copied=int(name))
            else:
                self.plain(bound, part, names.leaves[part.names], stacks, tie=bound.rule.tie or standing.tied)

    def plain(
        self,
        bound: BoundRule,
        landed: Landed,
        leaves: Numbers,
        stacks: Sequence[Column],
        *,
        tie: bool,
        copied: int | None = None,
    ) -> None:
        """A rule without axes onto leaves: tensors as they are."""
        terms = len(bound.rule.keys)
        # Each tie is compared with the leaf: several do not fill it twice. Each sum is one of its own.
        apart = (id(bound), copied) if tie else bound.number if terms > 1 else None
        equation = self.equation(bound.rule, len(stacks), terms, tie=tie, apart=apart)
        columns = stacked_columns(stacks) if terms == 1 else {**landed.rows.columns, **stacked_columns(stacks)}
        run = KeyRun(bound, landed.side, landed.rows.ids, leaves, leaves, columns)
        equation.arrive(TermPosition(landed.side, 0, 0), run)

    def equation(self, rule: Rule, depth: int, terms: int, *, tie: bool = False, apart: object = None) -> LeafEquation:
        """The equation of tensors as they are, which rules share that differ in names alone."""
        key = ("plain", depth, apart, rule.copy, rule.scale, rule.add)
        found = self.equations.get(key)
        if found is None:
            options = Options(scale=rule.scale, add=rule.add, tie=tie, copy=rule.copy)
            found = self.equations[key] = LeafEquation(None, depth, terms, options, lambda: (str(rule),))
        return found

    def explicit(self, arrival: Arrival, landed: Landed, leaves: Numbers, stacks: Sequence[Column]) -> None:
        """A rule with axes: its sides and branches are one equation."""
        bound, rule = arrival.bound, arrival.bound.rule
        key = _key(arrival)
        equation = self.equations.get(key)
        if equation is None:
            tie = rule.tie or arrival.standing.tied
            options = Options((), rule.scale, rule.add, rule.flip, tie, rule.copy)
            equation = self.equations[key] = LeafEquation(
                rule, len(stacks), len(rule.keys), options, self.texts_of(arrival)
            )
        groups = equation.numbered(landed.kept, len(landed.names))
        columns = {**landed.rows.columns, **stacked_columns(stacks)}
        run = KeyRun(bound, landed.side, landed.rows.ids, groups, leaves, columns)
        equation.arrive(TermPosition(0, landed.side, landed.branch), run)

    def texts_of(self, arrival: Arrival) -> Callable[[], Sequence[str]]:
        """What spells the concrete rules of an arrival."""

        def texts() -> Sequence[str]:
            from bridge.mapping.spelling import spelled  # a load asks for no texts

            return self.extended(
                ("rule", id(arrival.bound), arrival.standing.tied or arrival.standing), spelled(arrival)
            )

        return texts

    def extended(self, key: tuple[object, ...], texts: Sequence[str]) -> Sequence[str]:
        """Concrete rules with the extents that leaves alone do not tell, if they are of an equation with axes."""
        equation = self.equations.get(key)
        if equation is None:
            return texts
        from bridge.mapping.extents import with_extents

        return with_extents(texts, equation, self.table, self.leaves)


def _key(arrival: Arrival) -> tuple[object, ...]:
    return "rule", id(arrival.bound), arrival.standing.tied or arrival.standing  # copies of leaves are one, as they are


def _sent(rule: Rule, name: str) -> str:
    """Where a key went that came to no leaf."""
    return "" if rule is INFERENCE else f"sent to {quote(name)} by the rule '{rule}'"


def _distinct(columns: Sequence[Numbers]) -> list[int]:
    """The values of all columns, each once."""
    return np.unique(np.concatenate(columns)).tolist() if columns else []


def leaf_name(bound: BoundRule, branch: int) -> Name:
    """The leaf's name in one branch."""
    assert bound.leaf is not None
    return branch_name(bound.leaf, bound.rule.pairing, -1, branch)


def stacked_columns(stacks: Sequence[Column]) -> IndexColumns:
    """Places along leading axes, by the names of these axes."""
    return dict(zip(stack_names(len(stacks)), stacks, strict=True))


def _renaming(rule: Rule, keys: Sequence[str], leaves: Sequence[str]) -> Sequence[str]:
    from bridge.mapping.spelling import renaming

    return renaming(rule, keys, leaves)


def _dropping(bound: BoundRule) -> Callable[[], Sequence[str]]:
    """What spells the concrete rule of a drop."""

    def texts() -> Sequence[str]:
        from bridge.mapping.spelling import dropping

        return (dropping(bound, zeros=bound.rule.zeros),)

    return texts
