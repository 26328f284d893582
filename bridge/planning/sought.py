"""Which keys were looked for where a leaf is missing: the rules read backwards, as the checkpoint would spell them.

Only what a report shows is spelled: of a range of places the first and the last.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import product
from math import prod
from typing import NamedTuple

import numpy as np

from bridge._errors import PlanError
from bridge._text import plain_pieces, template
from bridge.mapping.bound import NameRows
from bridge.mapping.indexmap import Shape
from bridge.mapping.keynames import KeySpeller, SpelledKeys
from bridge.mapping.landing import ModelNames, Port
from bridge.mapping.pattern import Matrix
from bridge.mapping.problem import Missing
from bridge.mapping.template import PlacedLayout, Template, branch_names
from bridge.planning.backwards import more_general
from bridge.rules.rule import Rule
from bridge.rules.syntax import Axis, Hole, Index

_MOST = 200_000  # leaves times rules; reading more of them backwards would take longer than a report may
_ALL = 64  # places along one axis that are all spelled; of more the first and the last
_GRID = 4096  # places of one leaf that are spelled

PlaceRanges = tuple[range, ...]


class Sought(NamedTuple):
    """A rule that names a leaf, its number, and the keys that it spells for it."""

    number: int
    rule: Rule
    spelled: tuple[SpelledKeys, ...]

    def keys(self, place: PlaceRanges) -> list[str]:
        """The keys at a place of the leaf, or at what it is a part of."""
        found: dict[str, None] = {}
        for spelled in self.spelled:
            for key, own in zip(spelled.keys, spelled.places, strict=True):
                if all(number in numbers for number, numbers in zip(own, place, strict=False)):
                    found[key] = None
        return list(found)


def sought(rules: Sequence[Rule], model: Template, missing: Iterable[Missing]) -> dict[str, Sought]:
    """For each leaf of the problems that a rule names the most particular one, the first of several."""
    asked: dict[str, list[PlaceRanges]] = {}
    for problem in missing:
        asked.setdefault(problem.name, []).append(place_of(problem, model))
    if not rules or not asked or len(rules) * len(asked) > _MOST:
        return {}
    names = ModelNames(_only(model, asked))
    speller = _SoughtSpeller(
        names, {names.numbers[name]: places for name, places in asked.items() if name in names.numbers}
    )
    beside = {number for name, number in names.numbers.items() if name not in asked}
    found: dict[str, Sought] = {}
    for number, rule in enumerate(rules):
        if rule.leaf is None or rule.alt:
            continue
        for name, spelled in _by_leaf(speller, names, rule, beside).items():
            before = found.get(name)
            if before is None or _is_more_particular(rule, spelled, before):
                found[name] = Sought(number, rule, tuple(spelled))
    return found


def _only(model: Template, wanted: Collection[str]) -> Template:
    """The model of some leaves, and of those that layouts fill together with them."""
    placed: list[PlacedLayout] = []
    leaves = set(wanted)
    for layer in model.placed:
        names = {layer.leaf(n) for rule in layer.rules if rule.leaf is not None for n in branch_names(rule, -1)}
        if not names.isdisjoint(wanted):
            placed.append(layer)
            leaves |= names
    aliases = {name: leaf for name, leaf in model.aliases.items() if leaf in leaves}
    found = {name: spec for name, spec in model.leaves.items() if name in leaves}
    return Template(found, tuple(placed), aliases, frozenset(name for name in model.tied if name in aliases))


def place_of(problem: Missing, model: Template) -> PlaceRanges:
    """The ranges of a place: `[3, 0:2]` along all axes of its leaf."""
    spec = model.leaves.get(problem.name)
    shape = () if spec is None else spec.shape
    texts = problem.place[1:-1].split(", ") if problem.place else []
    found = list(map(range, shape))
    for axis, text in enumerate(texts[: len(shape)]):
        first, colon, last = text.partition(":")
        if first.isdecimal() and (last.isdecimal() or not colon):
            found[axis] = range(int(first), int(last) if colon else int(first) + 1)
    return tuple(found)


def between(first: str, last: str) -> str | None:
    """Two names that differ only in numbers as one, `h.{3..8}.w`; `None` where they differ otherwise."""
    (text, starts), (other, stops) = template(first), template(last)
    if text != other:
        return None
    numbers = [str(a) if a == b else f"{{{min(a, b)}..{max(a, b)}}}" for a, b in zip(starts, stops, strict=True)]
    return "".join(piece + number for piece, number in zip(plain_pieces(text), [*numbers, ""], strict=True))


def is_long(place: PlaceRanges) -> bool:
    """Whether not all keys of a place are spelled."""
    return any(len(numbers) > _ALL for numbers in place)


class _SoughtSpeller(KeySpeller):
    """Spells keys whatever their shapes are, at the places that are asked for."""

    def __init__(self, names: ModelNames, asked: Mapping[int, Sequence[PlaceRanges]]) -> None:
        super().__init__(names)
        self.asked = asked

    def solved(
        self,
        rule: Rule,
        shapes: Sequence[Shape | None],
        ports: Sequence[Port],
        rows: NameRows,
        depth: int,
        side: int,
        branch: int,
    ) -> tuple[Shape, Mapping[str, int]]:
        """The shape of a key, or none where the model does not tell it."""
        try:
            return super().solved(rule, shapes, ports, rows, depth, side, branch)
        except PlanError:
            return (), {}

    def grid(
        self,
        rule: Rule,
        rows: NameRows,
        extents: Shape,
        lead: Sequence[Hole],
        loose: Sequence[str],
        axes: Sequence[str],
    ) -> Matrix:
        """Only the places that are asked for, of long ranges their ends."""
        depth = len(lead) + len(loose)
        at = [*range(depth), *(_axis_of(rule, name, depth) for name in axes)]
        leaves = {self.leaves.leaf(name) for name in rows.ids.tolist()}
        places = [place for leaf in leaves for place in self.asked.get(leaf, ())]
        columns: list[list[int]] = []
        for axis, extent in zip(at, extents, strict=True):
            found: set[int] = set()
            for numbers in {
                place[axis] if axis is not None and axis < len(place) else range(extent) for place in places
            }:
                found.update(numbers if len(numbers) <= _ALL else (numbers[0], numbers[-1]))
            columns.append(sorted(number for number in found if number < extent))
        found_at = (
            product(*columns)
            if prod(map(len, columns)) <= _GRID
            else zip(*(c[:1] + c[-1:] for c in columns), strict=True)
        )
        return np.array(list(found_at), np.int64).reshape(-1, len(extents)).T


def _axis_of(rule: Rule, name: str, depth: int) -> int | None:
    """The axis of a leaf that is an index of the rule, behind `depth` others."""
    assert rule.leaf is not None
    for number, axis in enumerate(rule.leaf.axes or ()):
        if isinstance(axis, Axis) and [f.name for f in axis.factors if isinstance(f, Index)] == [name]:
            return depth + number if len(axis.factors) == 1 else None
    return None


def _by_leaf(
    speller: KeySpeller, names: ModelNames, rule: Rule, beside: Collection[int]
) -> dict[str, list[SpelledKeys]]:
    """What a rule spells, by leaf; nothing where it cannot be read backwards."""
    found: dict[str, list[SpelledKeys]] = {}
    try:
        for spelled in speller.spell(rule, beside):
            for target in spelled.targets:
                found.setdefault(names.table.names[target.leaf], []).append(spelled)
    except PlanError:
        return {}
    return found


def _is_more_particular(rule: Rule, spelled: Sequence[SpelledKeys], before: Sought) -> bool:
    own, other = spelled[0].as_named, before.spelled[0].as_named
    return more_general(other, before.rule.sizes, own, rule.sizes)
