"""A template as JSON: where the layouts of a model's layers stand, and by which other names its leaves go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from bridge.mapping.template import Placed, Spec, Template
from bridge.rules.rule import Rule
from bridge.rules.syntax import Choice

_DEPTH = 64  # a leaf has no more axes


def template_entry(model: Template) -> dict[str, Any]:
    """All of a template but its leaves; a layout that stands in many places is written once."""
    layouts: dict[tuple[Rule, ...], int] = {}
    placed = [[one.prefix, layouts.setdefault(one.rules, len(layouts)), one.depth, one.tied_at] for one in model.placed]
    return {
        "layouts": [[str(rule) for rule in rules] for rules in layouts],
        "placed": placed,
        "aliases": dict(model.aliases),
        "tied": sorted(model.tied),
        "fills": dict(model.fills),
        "hints": dict(model.hints),
    }


def read_template(entry: Mapping[str, Any], leaves: Mapping[str, Spec], kind: str) -> Template:
    """The template that `template_entry` wrote. **Raises:** `RuleError`, `ValueError` and its like for what is none."""
    layouts = [tuple(map(_rule, _texts(texts))) for texts in entry["layouts"]]
    return Template(
        leaves,
        tuple(_placed(one, layouts) for one in entry["placed"]),
        _by_name(entry["aliases"], str),
        frozenset(_texts(entry["tied"])),
        _by_name(entry["fills"], int),
        _by_name(entry["hints"], str),
        kind,
    )


def _placed(entry: Any, layouts: list[tuple[Rule, ...]]) -> Placed:
    prefix, number, depth, tied_at = entry
    if not (isinstance(prefix, str) and (tied_at is None or isinstance(tied_at, str))):
        raise TypeError("a layout stands at a name")
    if not (type(number) is int and 0 <= number < len(layouts) and type(depth) is int and 0 <= depth <= _DEPTH):
        raise ValueError(f"{entry[1:3]} is no layout and no number of axes")
    return Placed(prefix, layouts[number], depth, tied_at)


def _rule(text: str) -> Rule:
    """A layout's rule, whose names have neither indices nor wildcards."""
    rule = Rule(text)
    sides = (*rule.keys, *(() if rule.leaf is None else (rule.leaf,)))
    if not all(isinstance(piece, str | Choice) for side in sides for piece in side.name.pieces()):
        raise ValueError(f"'{text}' is no layout's rule")
    return rule


def _texts(entry: Any) -> list[str]:
    if not (isinstance(entry, list) and all(isinstance(text, str) for text in cast("list[Any]", entry))):
        raise TypeError("names and rules are lists of texts")
    return cast("list[str]", entry)


def _by_name(entry: Any, kind: type) -> dict[str, Any]:
    if not (isinstance(entry, dict) and all(type(value) is kind for value in cast("dict[str, Any]", entry).values())):
        raise TypeError(f"what is kept by name is {kind.__name__}")
    return cast("dict[str, Any]", entry)
