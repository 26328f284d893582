"""Layouts that users give to layers of their own, `layouts={MyLinear: "weight [o i] -> w [i o]"}`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple, TypeAlias

import jax.tree_util as jtu

from bridge._errors import PlanError, RuleError
from bridge._text import quote
from bridge.mapping.template import Spec, branch_names
from bridge.model.template import hidden, joined, kind_of
from bridge.rules.rule import Rule
from bridge.rules.syntax import Axes, Axis, Choice, Hole, Name, Rest, Side, Wild

Layouts: TypeAlias = Mapping[type, Sequence[Rule | str] | Rule | str]
"""What users write: a type of layer, and the rules from PyTorch's names to its leaves."""


class OwnLayout(NamedTuple):
    """The layout of one type: its rules as the user wrote them, and as the mapping takes them."""

    kind: type
    given: tuple[Rule, ...]
    rules: tuple[str, ...]


def own_layouts(layouts: Layouts | None) -> tuple[OwnLayout, ...]:
    """The layouts that a user gives.

    **Raises:** `PlanError` for a key that is no type; `RuleError` for a rule that cannot be a layout's.
    """
    if layouts is None:
        return ()
    if not isinstance(layouts, Mapping):
        raise PlanError(
            "layouts",
            f"must be a mapping, got {type(layouts).__name__}",
            "Give a mapping, {MyLayer: 'weight [o i] -> w [i o]'}",
        )
    found: list[OwnLayout] = []
    for kind, rules in layouts.items():
        if not isinstance(kind, type):
            raise PlanError(f"layouts: {kind!r}", "is not a type", "Give the class of a layer, not a layer or its name")
        items = [rules] if isinstance(rules, str | Rule) else rules
        if not isinstance(items, Sequence):
            raise RuleError(
                _of(kind),
                f": its layout must be a rule or a list of rules, got {type(items).__name__}",
                "Give a rule such as 'weight -> w'",
            )
        given = tuple(_checked(kind, item) for item in items)
        found.append(OwnLayout(kind, given, tuple(text for rule in given for text in _simple(rule))))
    return tuple(found)


def own_layout_of(layer: Any, layouts: Sequence[OwnLayout]) -> OwnLayout | None:
    """The layout that a user gives to a layer: of several types that it is, the most particular one's."""
    fitting = [own for own in layouts if isinstance(layer, own.kind)]
    order = {kind: rank for rank, kind in enumerate(type(layer).__mro__)}
    return min(fitting, key=lambda own: order.get(own.kind, len(order)), default=None)


def check_fits(own: OwnLayout, layer: Any, prefix: str, leaves: Mapping[str, Spec]) -> None:
    """Check that the rules of a layout speak of leaves that a layer has, or has on purpose not.

    **Raises:** `PlanError`.
    """
    ranks: dict[str, list[tuple[int, Rule]]] = {}
    for rule in own.given:
        for name in () if rule.leaf is None else dict.fromkeys(branch_names(rule, -1)):
            if joined(prefix, name) in leaves:
                least = sum(isinstance(axis, Axis) for axis in rule.leaf.axes or ()) if rule.leaf else 0
                ranks.setdefault(name, []).append((least, rule))
            elif not _empty(layer, name):
                at = f"{prefix}." if prefix else ""
                has = [leaf.removeprefix(at) for leaf in leaves if leaf.startswith(at)]
                raise PlanError(
                    _of(own.kind),
                    f"has no leaf {quote(name)}, which the rule '{rule}' of its layout names",
                    f"Name one that it has: {_listed(has)}",
                )
    for name, rules in ranks.items():
        # Rules of one leaf may be alternatives: one that fits is enough.
        rank, (axes, rule) = len(leaves[joined(prefix, name)].shape), min(rules, key=lambda each: each[0])
        if axes > rank:
            shape = leaves[joined(prefix, name)].shape
            raise PlanError(
                _of(own.kind),
                (
                    f": the rule '{rule}' of its layout gives the leaf {quote(name)} {axes} axes, but the shape "
                    f"of {quote(joined(prefix, name))} is {shape}"
                ),
                "Name the axes that the leaf has",
            )


def _checked(kind: type, item: Rule | str) -> Rule:
    """A rule that a layout may have. **Raises:** `RuleError`."""
    try:
        rule = item if isinstance(item, Rule) else Rule(item)
    except RuleError as error:
        raise error.at(f"{_of(kind)}, in its layout") from None
    sides = rule.keys if rule.leaf is None else (*rule.keys, rule.leaf)
    if any(isinstance(piece, Hole | Wild) for side in sides for piece in side.name.pieces()):
        raise RuleError(
            _of(kind),
            (
                f": the rule '{rule}' of its layout has an index or a wildcard in a name, but a layout "
                "describes one layer"
            ),
            "Write its names out; bridge knows the place of the layer",
        )
    shaped = [pair for pair in rule.pairing if pair.shaped]
    if any(None in pair.parts[:-1] for pair in shaped) and (len(shaped) > 1 or len(rule.keys) > 1):
        raise RuleError(
            _of(kind),
            f": the rule '{rule}' of its layout joins keys by a choice and has another choice, or a sum, beside it",
            "Write it as several rules, each for a part of the leaf",
        )
    if rule.tie or rule.copy or rule.alt:
        word = "tie" if rule.tie else "copy" if rule.copy else "alt"
        raise RuleError(
            _of(kind),
            f": the rule '{rule}' of its layout has the option '{word}', which layouts do not have",
            "Leave it out: of several names for one leaf any is read, and the first is written",
        )
    return rule


def _simple(rule: Rule) -> Iterator[str]:
    """The rule as the mapping takes it: with axes, and without choices that stand in names alone."""
    loose = [pair for pair in rule.pairing if not pair.shaped]
    keys_only = [side.axes for side in rule.keys]
    for picks in product(*(range(pair.branches) for pair in loose)):
        sides: list[Side] = []
        for number, side in enumerate(rule.keys if rule.leaf is None else (*rule.keys, rule.leaf)):
            texts = {pair.places[number]: pair.labels[number][pick] for pair, pick in zip(loose, picks, strict=True)}
            sides.append(Side(_filled(side.name, texts), _axes(side.axes, drop=rule.leaf is None)))
        keys, leaf = sides[: len(keys_only)], "_" if rule.leaf is None else str(sides[-1])
        yield str(Rule(f"{' + '.join(map(str, keys))} -> {leaf}", **rule.options()))


def _axes(axes: Axes | None, *, drop: bool) -> Axes | None:
    """A rename leaves a tensor as it is, whatever its axes are."""
    return (Rest(),) if axes is None and not drop else axes


def _filled(name: Name, texts: Mapping[int | None, str]) -> Name:
    """A name with some of its choices, by their number, replaced by texts."""
    number, segments = -1, list[tuple[Any, ...]]()
    for segment in name.segments:
        pieces: list[Any] = []
        for piece in segment:
            number += isinstance(piece, Choice)
            pieces.append(texts.get(number, piece) if isinstance(piece, Choice) else piece)
        segments.append(tuple(pieces))
    return Name(tuple(segments))


def _empty(layer: Any, name: str) -> bool:
    """Whether a layer has an attribute of this name, and nothing there: `bias=None`, or an array that is shared."""
    node = layer
    for segment in name.split("."):
        unseen = hidden(type(node)) if kind_of(type(node)) == "module" else None
        if unseen is not None:
            node = getattr(node, unseen[0])
        if isinstance(node, Mapping):
            node = node.get(segment, _NOTHING)
        elif isinstance(node, list | tuple) and segment.isdecimal():
            node = node[int(segment)] if int(segment) < len(node) else _NOTHING
        else:
            node = getattr(node, segment, _NOTHING)
        if node is _NOTHING:
            return False
        # `eqx.nn.Shared` puts an object of this type where it took an array out; it has no public name.
        if type(node).__name__ == "SharedNode" or not jtu.tree_leaves(node):
            return True
    return False


_NOTHING = object()


def _of(kind: type) -> str:
    return quote(kind.__qualname__.rpartition("<locals>.")[2])


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(map(quote, names[:8]))
    return f"{shown} and {len(names) - 8} more" if len(names) > 8 else shown or "none"
