"""The rules of layouts as concrete rules: at their places in a model, with the names that keys came by."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache
from itertools import product
from typing import NamedTuple

import numpy as np

from bridge.mapping.arrays import ArrayTable, Shape
from bridge.mapping.bound import BoundRule
from bridge.mapping.equation import Arrival
from bridge.mapping.landing import Port
from bridge.mapping.pattern import decoded, hole_of
from bridge.mapping.spelling import Variant, sizes_of, variants, written
from bridge.mapping.template import branch_names
from bridge.rules.options import Options, rule_text
from bridge.rules.rule import Rule
from bridge.rules.syntax import (
    NO_NAME,
    Axes,
    Axis,
    Factor,
    Hole,
    Index,
    JoinedParts,
    Name,
    NamePiece,
    Segment,
    Side,
)
from bridge.rules.syntax import (
    literal as plain_name,
)

_VariantPlace = tuple[int, int, int]
"""A term of the user's sum, a side of the layout's rule, and which of its names (a join has several)."""


class _LayoutKey(NamedTuple):
    """A variant at one side of a layout's rule: the name of its key, where the layer stands, and the axes in front."""

    key: Name
    prefix: tuple[Segment, ...]
    lead: tuple[Axis, ...]
    bound: BoundRule


class LayoutSpelling:
    """A layout's rule, with the bound rules that came to each of its sides."""

    def __init__(self, rule: Rule, user: Rule, table: ArrayTable, *, tie: bool) -> None:
        self.rule, self.user, self.table, self.tie = rule, user, table, tie
        self.arrivals: dict[_VariantPlace, list[tuple[Port, Arrival]]] = {}

    def arrive(self, term: int, port: Port, arrival: Arrival) -> None:
        """Add a bound rule at a term of the user's sum and a side of the layout's rule."""
        found = self.arrivals.setdefault((term, port.side, _called(self.rule, port.side).index(_name(port))), [])
        # A key that an axis of parts takes apart is in every branch, and is spelled once.
        if not any(other is arrival for _, other in found):
            found.append((port, arrival))

    def texts(self) -> list[str]:
        """The concrete rules."""
        order: list[_VariantPlace] = [
            (term, side, name)
            for term in range(len(self.user.keys))
            for side in range(len(self.rule.keys))
            for name in range(len(_called(self.rule, side)))
        ]
        for literal in (False, True):
            sides = [self.entries(self.arrivals.get(place, ()), literal=literal) for place in order]
            present = [side for side in sides if side]
            prefixes = [{_where(entry) for entry in side} for side in present]
            # Each layer has to meet its own keys, and no other layer's.
            told = all(len(found) == len(side) for found, side in zip(prefixes, present, strict=True))
            if literal or (all(found == prefixes[0] for found in prefixes) and (told or len(present) == 1)):
                break
        found: list[str] = []
        there = {place for place, side in zip(order, sides, strict=True) if side}
        for first in present[0]:
            others = [[e for e in side if _where(e) == _where(first)] if side else [first] for side in sides]
            for entries in product(*others):
                found += self.text(dict(zip(order, entries, strict=True)), there)
        return found

    def entries(self, arrivals: Sequence[tuple[Port, Arrival]], *, literal: bool) -> list[_LayoutKey]:
        """The variants of the bound rules that came to one side."""
        found: list[_LayoutKey] = []
        for port, arrival in arrivals:
            term = next(iter(arrival.bound.rows))[0]
            for variant in variants(arrival, literal=literal):
                found.append(self.entry(port, arrival, variant, term))
        return found

    def entry(self, port: Port, arrival: Arrival, variant: Variant, side: int) -> _LayoutKey:
        """One variant, with numbers of the layout's own name, as in `parametrizations.weight.0._u`, written out."""
        bound, kept = arrival.bound, variant.kept
        tail = branch_names(port.rule, port.side)[port.branch].split(".")
        own: dict[str, int] = {}
        for segment, text in zip(kept[len(kept) - len(tail) :], tail, strict=True):
            if (hole := hole_of(segment)) is not None:
                _, positions = decoded(hole, bound.sizes, np.array([int(text)]))
                own |= {i.name: int(p[0]) for i, p in zip(hole.indices, positions, strict=True)}
        prefix = kept[: len(kept) - len(tail)]
        if port.tied_to is not None:
            prefix = tuple((text,) for text in port.tied_to.split(".")) if port.tied_to else ()
        lead = (*variant.lead, *(Axis((Index(dropped),)) for dropped in bound.dropped(side)))
        return _LayoutKey(written(variant.keys[side], own, bound.sizes), prefix, lead, bound)

    def text(self, entries: Mapping[_VariantPlace, _LayoutKey], present: Collection[_VariantPlace]) -> list[str]:
        """The concrete rules of one entry for each key. One that did not come is called as its sisters are."""
        rule = self.rule
        first = next(entry for place, entry in entries.items() if place in present)
        assert rule.leaf is not None
        taken = {index.name for entry in entries.values() for index in _indices(entry)}
        names = {f.name for side in (*rule.keys, rule.leaf) for f in side.factors() if isinstance(f, Index)}
        new = {name: _free(name, taken | names) for name in names if name in taken}
        by_side: dict[tuple[int, int], list[Name]] = {}
        for (term, number, which), entry in entries.items():
            local = plain_name(_called(rule, number)[which]).segments
            there = (term, number, which) in present
            name = entry.key if there else Name((*entry.key.segments[: -len(local)], *local))
            by_side.setdefault((term, number), []).append(_aligned(name, entry, first))
        called = list(by_side.values())
        sides = [Side(found[0], rule.keys[number].axes) for (_, number), found in by_side.items()]
        if len(called[0]) == 1:
            return [self.one(first, sides, rule.leaf.axes or (), {}, new)]
        from bridge.mapping.join_spelling import joined_key, parts_apart  # few layouts join keys

        as_one = joined_key(called[0], rule.pairing[0])
        if as_one is not None:
            return [self.one(first, [Side(as_one[0], sides[0].axes)], rule.leaf.axes or (), {}, {**new, **as_one[1]})]
        parts = parts_apart(rule, called[0], [shape_of(self.table, entry.bound) for entry in entries.values()])
        return [self.one(first, [part.key], part.leaf, part.sizes, new) for part in parts]

    def one(
        self, first: _LayoutKey, keys: Sequence[Side], axes: Axes, sizes: Mapping[str, int], new: Mapping[str, str]
    ) -> str:
        """The text of a concrete rule; `new` are axes and parts that have to be called otherwise."""
        rule, user = self.rule, self.user
        assert rule.leaf is not None
        keys = [Side(key.name, _renamed(key.axes, new)) for key in keys]
        leaf = Side(Name((*first.prefix, *rule.leaf.name.segments)), (*first.lead, *(_renamed(axes, new) or ())))
        known = {new.get(name, name): size for name, size in (*rule.sizes, *sizes.items())} | dict(user.sizes)
        flip = tuple(new.get(name, name) for name in rule.flip)
        scale, add = rule.scale * user.scale, rule.scale * user.add + rule.add
        options = Options(sizes_of(known, [*keys, leaf]), scale, add, flip, self.tie, user.copy)
        return rule_text(keys, leaf, options)


@cache
def _called(rule: Rule, side: int) -> tuple[str, ...]:
    """What a key side of a layout's rule is called: several names where its name has the choice that an axis holds."""
    return tuple(dict.fromkeys(branch_names(rule, side)))


def shape_of(table: ArrayTable, bound: BoundRule) -> Shape | None:
    """The shape of a bound rule's keys, where they have one."""
    shapes = {table.spec(key).shape for key in bound.ids.tolist()}
    return shapes.pop() if len(shapes) == 1 else None


def _name(port: Port) -> str:
    return branch_names(port.rule, port.side)[port.branch]


def _places(entry: _LayoutKey) -> list[str]:
    """The indices that say where a layer stands, in their order."""
    holes = [i.name for i in Name(entry.prefix or NO_NAME.segments).indices()]
    return holes + [f.name for axis in entry.lead for f in axis.factors if isinstance(f, Index)]


def _aligned(key: Name, entry: _LayoutKey, first: _LayoutKey) -> Name:
    """A key with the indices called as another entry of the same layer calls them."""
    new = dict(zip(_places(entry), _places(first), strict=True))
    return _with_names(key, new) if any(old != other for old, other in new.items()) else key


def _with_names(name: Name, new: Mapping[str, str]) -> Name:
    def piece(piece: NamePiece) -> NamePiece:
        if not isinstance(piece, Hole):
            return piece
        return Hole(tuple(Index(new.get(i.name, i.name), i.selection) for i in piece.indices))

    return Name(tuple(tuple(map(piece, segment)) for segment in name.segments))


def _where(entry: _LayoutKey) -> str:
    """Where the layer stands, whatever its indices are called."""
    new = {name: f"i{n}" for n, name in enumerate(dict.fromkeys(_places(entry)))}
    lead = _renamed(entry.lead, new) or ()
    return f"{_with_names(Name(entry.prefix or NO_NAME.segments), new)} {' '.join(map(str, lead))}"


def _indices(entry: _LayoutKey) -> Iterator[Index]:
    yield from entry.key.indices()
    yield from Name(entry.prefix or NO_NAME.segments).indices()
    yield from (factor for axis in entry.lead for factor in axis.factors if isinstance(factor, Index))


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    return name


def _renamed(axes: Axes | None, new: Mapping[str, str]) -> Axes | None:
    if axes is None or not new:
        return axes

    def other(factor: Factor) -> Factor:
        if isinstance(factor, JoinedParts):
            return JoinedParts(tuple(new.get(label, label) for label in factor.labels))
        return Index(new.get(factor.name, factor.name), factor.selection) if isinstance(factor, Index) else factor

    return tuple(Axis(tuple(map(other, axis.factors))) if isinstance(axis, Axis) else axis for axis in axes)
