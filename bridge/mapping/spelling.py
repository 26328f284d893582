"""Concrete rules as texts: what a bound rule came to in a model, without wildcards and without layouts.

Nothing is decided here: a text says what has been decided, so that the same rules, given again, make an equal plan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import prod
from typing import NamedTuple

import numpy as np

from bridge._text import plain
from bridge.mapping.bound import BoundRule
from bridge.mapping.equation import Arrival
from bridge.mapping.landing import Landing, Standing
from bridge.mapping.pattern import decoded, encoded, hole_of, number_of
from bridge.rules.check import all_indices
from bridge.rules.options import Options, rule_text
from bridge.rules.rule import Rule
from bridge.rules.syntax import (
    Axis,
    Choice,
    Hole,
    Index,
    JoinedParts,
    Name,
    NamePiece,
    Rest,
    Segment,
    Selection,
    Side,
    joined,
    literal,
)


class Variant(NamedTuple):
    """A bound rule for some of its rows: its keys' names, and its leaf's segments with `axes` still among them."""

    keys: tuple[Name, ...]
    leaf: tuple[Segment, ...]
    axes: tuple[int, ...]

    @property
    def kept(self) -> tuple[Segment, ...]:
        """The segments that stay in the leaf's name."""
        return tuple(segment for at, segment in enumerate(self.leaf) if at not in self.axes)

    @property
    def lead(self) -> list[Axis]:
        """The axes that segments become."""
        found: list[Axis] = []
        for at in self.axes:
            hole, number = hole_of(self.leaf[at]), number_of(self.leaf[at])
            indices = (Index(f"n{at}_", Selection(picked=(number or 0,))),) if hole is None else hole.indices
            found.append(Axis(tuple(indices)))
        return found


def spelled(arrival: Arrival) -> list[str]:
    """The concrete rules of a bound rule at names of leaves."""
    bound, standing = arrival.bound, arrival.standing
    found: list[str] = []
    for variant in variants(arrival):
        name = variant.kept if standing.leaf is None else _real(standing, variant.kept)
        found.append(_text(bound, variant, Name(name or ((),)), standing))
    return found


def reading(bound: BoundRule, landing: Landing) -> str:
    """A reading as a user would write it: `a.{i}.{j}.w -> a.{j}.w`, the index that became an axis left out."""
    assert bound.leaf is not None
    variant = Variant(bound.keys, bound.leaf.segments, landing)
    return f"{variant.keys[0]} -> {Name(variant.kept or ((),))}"


def dropping(bound: BoundRule, *, zeros: bool) -> str:
    """The concrete rule of keys that no leaf gets."""
    keys = [Side(bound.keys[0], bound.rule.keys[0].axes)]
    return rule_text(keys, None, Options(sizes_of(bound.sizes, keys), zeros=zeros))


def dropping_variants(arrival: Arrival, *, zeros: bool) -> list[str]:
    """The concrete rules of those keys of a bound rule that came to a layout which drops them."""
    bound = arrival.bound
    found: list[str] = []
    for variant in variants(arrival):
        keys = [Side(variant.keys[0], bound.rule.keys[0].axes)]
        found.append(rule_text(keys, None, Options(sizes_of(bound.sizes, keys), zeros=zeros)))
    return found


def renaming(rule: Rule, keys: Sequence[str], leaves: Sequence[str]) -> list[str]:
    """The concrete rules of keys that go one by one to leaves."""
    options = Options((), rule.scale, rule.add)
    pairs = zip(keys, leaves, strict=True)
    return [rule_text([Side(literal(key))], Side(literal(leaf)), options) for key, leaf in pairs]


# Rows of a bound rule


def variants(arrival: Arrival, *, literal: bool = False) -> list[Variant]:
    """The bound rule as one, or as several that together have just the rows that arrived.

    `literal` writes every number of the leaf's name out.
    """
    bound, landing = arrival.bound, arrival.landing
    assert bound.leaf is not None
    whole = Variant(bound.keys, bound.leaf.segments, () if landing is None else landing)
    if landing is None or not arrival.kept or (arrival.whole and not literal):
        return [whole]
    rows: list[tuple[int, ...]] = sorted({tuple(row) for kept in arrival.kept for row in kept.tolist()})
    other = not arrival.standing.alike or any(port.tied_to is not None for port in arrival.standing.ports)
    if not literal and not other and (selected := _selected(bound, whole, rows)) is not None:
        return [selected]
    return [narrowed(bound, whole, row) for row in rows]


def narrowed(bound: BoundRule, variant: Variant, row: Sequence[int | None]) -> Variant:
    """The variant with numbers of its leaf's name written out; `None` leaves one as it is."""
    values: dict[str, int] = {}
    numbers = iter(row)
    for segment in variant.kept:
        hole = hole_of(segment)
        if hole is None:
            if number_of(segment) is not None:
                next(numbers)
            continue
        number = next(numbers)
        if number is not None:
            _, positions = decoded(hole, bound.sizes, np.array([number]))
            values |= {i.name: int(p[0]) for i, p in zip(hole.indices, positions, strict=True)}
    keys = tuple(written(key, values, bound.sizes) for key in variant.keys)
    return Variant(keys, written(Name(variant.leaf), values, bound.sizes).segments, variant.axes)


def _selected(bound: BoundRule, variant: Variant, rows: Sequence[tuple[int, ...]]) -> Variant | None:
    """The variant with selections that leave just these rows; `None` where they are no product, or cannot be said."""
    segments = [s for s in variant.kept if hole_of(s) is not None or number_of(s) is not None]
    columns: list[list[int]] = [sorted({row[n] for row in rows}) for n in range(len(segments))]
    if prod(map(len, columns)) != len(rows):
        return None
    chosen: dict[str, Selection] = {}
    for segment, column in zip(segments, columns, strict=True):
        if len(column) == 1:
            continue
        hole = hole_of(segment)
        if hole is None or len(hole.indices) != 1 or hole.indices[0].selection is not None:
            return None
        chosen[hole.indices[0].name] = _selection(column)
    found = narrowed(bound, variant, [column[0] if len(column) == 1 else None for column in columns])
    keys = tuple(_with_selections(key, chosen) for key in found.keys)
    return Variant(keys, _with_selections(Name(found.leaf), chosen).segments, found.axes)


def _selection(values: Sequence[int]) -> Selection:
    step = values[1] - values[0]
    if any(b - a != step for a, b in pairwise(values)):
        return Selection(picked=tuple(values))
    return Selection(values[0], values[-1] + 1, None if step == 1 else step)


def _with_selections(name: Name, chosen: Mapping[str, Selection]) -> Name:
    def piece(piece: NamePiece) -> NamePiece:
        if not isinstance(piece, Hole):
            return piece
        return Hole(tuple(Index(i.name, chosen.get(i.name, i.selection)) for i in piece.indices))

    return Name(tuple(tuple(map(piece, segment)) for segment in name.segments))


def written(name: Name, values: Mapping[str, int], sizes: Mapping[str, int]) -> Name:
    """A name with indices of these positions written out as numbers."""

    def piece(piece: NamePiece) -> NamePiece:
        if not isinstance(piece, Hole) or not any(index.name in values for index in piece.indices):
            return piece
        if all(index.name in values for index in piece.indices):
            columns = {index.name: np.array([values[index.name]]) for index in piece.indices}
            return str(int(encoded(piece, sizes, columns, 1)[0]))
        return Hole(tuple(_fixed(index, values, sizes) for index in piece.indices))

    return Name(tuple(joined(list(map(piece, segment))) for segment in name.segments))


def _fixed(index: Index, values: Mapping[str, int], sizes: Mapping[str, int]) -> Index:
    if index.name not in values:
        return index
    number = int(encoded(Hole((index,)), sizes, {index.name: np.array([values[index.name]])}, 1)[0])
    return Index(index.name, Selection(picked=(number,)))


def _real(standing: Standing, kept: Sequence[Segment]) -> tuple[Segment, ...]:
    """The leaf's own name where `kept` is another spelling: the numbers are the same, in their order."""
    assert standing.leaf is not None
    texts = standing.leaf.split(".")
    if not standing.alike:
        found = [(text,) if text else () for text in texts]
    else:
        numbers = iter([s for s in kept if hole_of(s) is not None or number_of(s) is not None])
        found = [next(numbers) if text == "{}" else ((plain(text),) if text else ()) for text in texts]
    # Copies of several leaves stand side by side: one rule speaks of all.
    chosen = [any(isinstance(piece, Choice) for piece in segment) for segment in kept]
    if any(chosen) and len(kept) == len(found):
        found = [own if choice else real for own, real, choice in zip(kept, found, chosen, strict=True)]
    return tuple(found)


# The text of one rule


def _text(bound: BoundRule, variant: Variant, name: Name, standing: Standing) -> str:
    """The concrete rule of a variant: its leaf is called `name`, what left the name stands in front of the axes."""
    rule = bound.rule
    assert rule.leaf is not None
    side = next((side for side, _ in bound.rows), 0)
    lead = variant.lead + [Axis((Index(dropped),)) for dropped in bound.dropped(side)]
    leaf_axes, key_axes = rule.leaf.axes, [key.axes for key in rule.keys]
    if leaf_axes is not None:
        leaf_axes = (*lead, *leaf_axes)
    elif standing.layered or not _in_front(variant.keys[side], lead):
        # Without axes a layout would have a say in it.
        leaf_axes, key_axes = (*lead, Rest()), [(Rest(),) for _ in rule.keys]
    keys = [Side(key, axes) for key, axes in zip(variant.keys, key_axes, strict=True)]
    leaf = Side(name, leaf_axes)
    sizes = sizes_of(bound.sizes, [*keys, leaf])
    return rule_text(keys, leaf, Options(sizes, rule.scale, rule.add, rule.flip, rule.tie or standing.tied, rule.copy))


def _in_front(key: Name, lead: Sequence[Axis]) -> bool:
    """Whether a rule without axes puts the indices of a key in front just so."""
    shown = [axis.factors[0] if len(axis.factors) == 1 else None for axis in lead]
    names = [index.name if isinstance(index, Index) and index.selection is None else None for index in shown]
    stacked = {factor.name for axis in lead for factor in axis.factors if isinstance(factor, Index)}
    order = [index.name for index in key.indices() if index.name in stacked]
    return names == order and not any(index.single for index in key.indices() if index.name in stacked)


def sizes_of(sizes: Mapping[str, int], sides: Sequence[Side]) -> tuple[tuple[str, int], ...]:
    """The sizes that a rule with these sides can speak of."""
    words = {index.name for side in sides for index in all_indices(side)}
    words |= {
        label
        for side in sides
        for factor in side.factors()
        if isinstance(factor, JoinedParts)
        for label in factor.labels
    }
    return tuple(sorted((name, size) for name, size in sizes.items() if name in words))
