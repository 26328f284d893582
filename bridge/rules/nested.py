"""Rules within a rule: what becomes of what its `**` took. Each is the flat rule that the two come to together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from bridge._errors import RuleError
from bridge.rules.check import all_indices, check_wildcards
from bridge.rules.options import Option, Options, fail, rule_text, settled
from bridge.rules.parse import Parsed, read_rule
from bridge.rules.syntax import NO_NAME, Name, Segment, Side, Wild

DEPTH = 64
"""How many rules may stand around another."""


class Outer(NamedTuple):
    """What stands around inner rules: in front of their keys and leaves, and how many of its indices there are.

    `text` is the innermost of the outer rules, as it was written; `indices` are the names of all indices around.
    """

    text: str
    key: tuple[Segment, ...] = ()
    leaf: tuple[Segment, ...] = ()
    sizes: tuple[tuple[str, int], ...] = ()
    indices: frozenset[str] = frozenset()
    depth: int = 0


def outer(text: str, options: Mapping[str, Option], around: Outer) -> Outer:
    """A rule that has inner rules, itself within `around`.

    **Raises:** `RuleError`, pointing at the place in `text`.
    """
    parsed = read_rule(text, options)
    given = settled(text, parsed.options_at, parsed.options)
    if around.depth == DEPTH:
        fail(
            text,
            0,
            f"this rule is nested too deep: at most {DEPTH} rules can be around another",
            "Write it as a rule of its own",
        )
    if len(parsed.keys) > 1:
        fail(text, parsed.keys[1].at, "a rule with inner rules has one key", "Write the sum on inner rules")
    if parsed.leaf is None:
        fail(text, parsed.options_at, "a rule with inner rules has a leaf side", "Write the drop on inner rules")
    sides = (*parsed.keys, parsed.leaf)
    for side in sides:
        _check_side(text, side)
    check_wildcards(text, parsed)
    if given.with_sizes(()):
        fail(
            text,
            parsed.options_at,
            "a rule with inner rules has no option but the number of its indices",
            "Write others on inner rules",
        )
    names = {index.name for side in sides for index in side.name.indices()}
    for name, _ in given.sizes:
        if name not in names | around.indices:
            fail(
                text,
                parsed.options_at,
                f"option '{name}' is not an index of this rule",
                "Write axes, and their extents, on inner rules",
            )
    _check_new(text, parsed, around)
    sizes = _sizes(text, parsed, given, around)
    key, leaf = (_put(before, side.name) for before, side in zip((around.key, around.leaf), sides, strict=True))
    return Outer(text, key.segments[:-1], leaf.segments[:-1], sizes, around.indices | names, around.depth + 1)


def inner(text: str, options: Mapping[str, Option], around: Outer) -> str:
    """The text of the flat rule that an inner rule is.

    **Raises:** `RuleError`, pointing at the place in `text`.
    """
    parsed = read_rule(text, options)
    given = settled(text, parsed.options_at, parsed.options)
    _check_new(text, parsed, around)
    keys = [Side(_put(around.key, side.name), side.axes) for side in parsed.keys]
    leaf = None if parsed.leaf is None else Side(_put(around.leaf, parsed.leaf.name), parsed.leaf.axes)
    there = {index.name for side in (*keys, *([leaf] if leaf else ())) for index in all_indices(side)}
    own = {name for name, _ in given.sizes}
    sizes = tuple(size for size in _sizes(text, parsed, given, around) if size[0] in there | own)
    return rule_text(keys, leaf, given.with_sizes(sizes))


def explained(error: RuleError, text: str, around: Outer) -> RuleError:
    """The error of a flat rule, with the inner rule that it came from."""
    return error.at("", f"\n  which is '{text}' within '{around.text}'")


def _check_side(text: str, side: Side) -> None:
    """One `**`, at the end, and no axes."""
    deep = [piece for piece in side.name.pieces() if isinstance(piece, Wild) and piece.deep]
    last = side.name.segments[-1]
    if not (deep and last and last[0] is deep[-1]):
        fail(
            text,
            side.at,
            "a rule with inner rules ends in '**' on both sides",
            "Write '**' there, for the names that its inner rules match",
        )
    if len(deep) > 1:
        fail(text, deep[0].at, "a rule with inner rules has one '**' on a side, at its end", "Leave this one out")
    if side.axes is not None:
        fail(text, side.at, "a rule with inner rules has no axes", "Write them on inner rules")


def _check_new(text: str, parsed: Parsed, around: Outer) -> None:
    """No name of an outer index is introduced again. The leaf side may speak of it."""
    for side in parsed.keys:
        for index in all_indices(side):
            if index.name in around.indices:
                fail(
                    text,
                    index.at,
                    f"'{index.name}' is an index of the outer rule already",
                    "Give this one another name",
                )


def _sizes(text: str, parsed: Parsed, given: Options, around: Outer) -> tuple[tuple[str, int], ...]:
    """The sizes of a rule and those around it."""
    found = dict(around.sizes)
    for name, size in given.sizes:
        if found.setdefault(name, size) != size:
            fail(
                text,
                parsed.options_at,
                f"option '{name}' is {found[name]} on the outer rule, and {size} here",
                "Write it once",
            )
    return tuple(sorted(found.items()))


def _put(before: tuple[Segment, ...], name: Name) -> Name:
    """A name behind these segments, where `**` stood. The empty name is no segment at all."""
    if not before:
        return name
    return Name(before) if name == NO_NAME else Name((*before, *name.segments))
