"""The rules of layouts as concrete rules: at their places in a model, with the names that keys came by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np

from bridge.mapping.bound import BoundRule
from bridge.mapping.equation import Arrival
from bridge.mapping.landing import Port
from bridge.mapping.pattern import decoded, hole_of
from bridge.mapping.spelling import Variant, sizes_of, variants, written
from bridge.mapping.template import branch_names
from bridge.rules.options import Options, rule_text
from bridge.rules.rule import Rule
from bridge.rules.syntax import NO_NAME, Axes, Axis, Factor, Index, Name, Segment, Side


class _Entry(NamedTuple):
    """A variant at one side of a layout's rule: the name of its key, where the layer stands, and the axes in front."""

    key: Name
    prefix: tuple[Segment, ...]
    lead: tuple[Axis, ...]
    bound: BoundRule


class LayoutSpelling:
    """A layout's rule, with the bound rules that came to each of its sides."""

    def __init__(self, rule: Rule, user: Rule, *, tie: bool) -> None:
        self.rule, self.user, self.tie = rule, user, tie
        self.arrivals: dict[tuple[int, int], list[tuple[Port, Arrival]]] = {}

    def arrive(self, term: int, port: Port, arrival: Arrival) -> None:
        """Add a bound rule at a term of the user's sum and a side of the layout's rule."""
        found = self.arrivals.setdefault((term, port.side), [])
        # A key that an axis of parts takes apart is in every branch, and is spelled once.
        if not any(other is arrival for _, other in found):
            found.append((port, arrival))

    def texts(self) -> list[str]:
        """The concrete rules."""
        order = [(term, side) for term in range(len(self.user.keys)) for side in range(len(self.rule.keys))]
        for literal in (False, True):
            sides = [self.entries(self.arrivals.get(place, ()), literal=literal) for place in order]
            present = [side for side in sides if side]
            prefixes = [{_where(entry) for entry in side} for side in present]
            if literal or all(found == prefixes[0] for found in prefixes):
                break
        found: list[str] = []
        for first in present[0]:
            others = [[e for e in side if _where(e) == _where(first)] if side else [first] for side in sides]
            found += [self.text(entries, [bool(side) for side in sides]) for entries in product(*others)]
        return found

    def entries(self, arrivals: Sequence[tuple[Port, Arrival]], *, literal: bool) -> list[_Entry]:
        """The variants of the bound rules that came to one side."""
        found: list[_Entry] = []
        for port, arrival in arrivals:
            term = next(iter(arrival.bound.rows))[0]
            for variant in variants(arrival, literal=literal):
                found.append(self.entry(port, arrival, variant, term))
        return found

    def entry(self, port: Port, arrival: Arrival, variant: Variant, side: int) -> _Entry:
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
        return _Entry(written(variant.keys[side], own, bound.sizes), prefix, lead, bound)

    def text(self, entries: Sequence[_Entry], present: Sequence[bool]) -> str:
        """The concrete rule of one entry for each side. A side that no key came to is called as its sisters are."""
        rule, first = self.rule, entries[0]
        assert rule.leaf is not None
        taken = {index.name for entry in entries for index in _indices(entry)}
        names = {f.name for side in (*rule.keys, rule.leaf) for f in side.factors() if isinstance(f, Index)}
        new = {name: _free(name, taken | names) for name in names if name in taken}
        keys: list[Side] = []
        for number, (entry, there) in enumerate(zip(entries, present, strict=True)):
            side = rule.keys[number % len(rule.keys)]
            local = side.name.segments
            name = entry.key if there else Name((*entry.key.segments[: -len(local)], *local))
            keys.append(Side(name, _renamed(side.axes, new)))
        axes = _renamed(rule.leaf.axes, new)
        name = Name((*first.prefix, *rule.leaf.name.segments))
        leaf = Side(name, (*first.lead, *axes) if axes is not None else axes)
        sizes = {new.get(name, name): size for name, size in rule.sizes} | dict(self.user.sizes)
        flip = tuple(new.get(name, name) for name in rule.flip)
        scale, add = rule.scale * self.user.scale, rule.scale * self.user.add + rule.add
        options = Options(sizes_of(sizes, [*keys, leaf]), scale, add, flip, self.tie, self.user.copy)
        return rule_text(keys, leaf, options)


def _where(entry: _Entry) -> str:
    return f"{Name(entry.prefix or NO_NAME.segments)} {' '.join(map(str, entry.lead))}"


def _indices(entry: _Entry) -> Iterator[Index]:
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
        return Index(new.get(factor.name, factor.name), factor.selection) if isinstance(factor, Index) else factor

    return tuple(Axis(tuple(map(other, axis.factors))) if isinstance(axis, Axis) else axis for axis in axes)
