"""Rules that name the same leaf: which one it is saved by, where no plan says which one it was loaded by.

It goes to the first rule that names it, if each later one is more general: its leaf side matches all names that the
first's does, and more. Between two that are equally particular nothing decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache

import numpy as np

from bridge._errors import PlanError
from bridge._text import quote
from bridge._values import NamedTuple
from bridge.mapping.indexmap import Shape
from bridge.mapping.keys import KeyTable
from bridge.mapping.pattern import Codec, Pattern
from bridge.mapping.send import Sender, send
from bridge.mapping.template import Spec
from bridge.planning.way import Way, part
from bridge.rules.rule import Rule
from bridge.rules.syntax import Choice, Hole, Name, Piece, Wild

Sizes = tuple[tuple[str, int], ...]

_PLACES = (0, 1, 2, 3, 11, 997)  # enough to tell one selection from another
_TEXTS = ("\ue000", "\ue000x", "")  # what no rule and no model is called
_DEEP = ("\ue000", "\ue000.\ue001.\ue002", "")


class Claim(NamedTuple):
    """What a rule took first: how it names the leaf, and a key that it is saved as."""

    rule: Rule
    number: int
    kept: Name
    key: str


class Rivals:
    """The leaves that rules have taken; `check` is asked by rules that come later."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.rules = rules
        self.by_name: dict[str, dict[Shape, Claim]] = {}
        self.by_leaf: dict[str, Claim] = {}

    def first(self, sender: Sender, way: Way, stack: Shape, keys: Iterable[str]) -> None:
        """A rule has taken a place of a leaf's stack, with all below it."""
        for key in keys:
            claim = Claim(sender.rule, sender.number, way.kept, key)
            self.by_name.setdefault(way.name, {}).setdefault(stack, claim)
            self.by_leaf.setdefault(way.fills, claim)
            return

    def check(self, sender: Sender, way: Way, stack: Shape | None, keys: Iterable[tuple[str, Shape]]) -> None:
        """A later rule names the same place; `stack` is `None` where it does so by another name of the leaf.

        **Raises:** `PlanError` where it could be the one that the leaf was loaded by.
        """
        first, rule = self.claim(way, stack), sender.rule
        if first is None or first.number == sender.number or _part_of(first.rule) != _part_of(rule):
            return
        if more_general(way.kept, rule.sizes, first.kept, first.rule.sizes):
            return
        for key, shape in keys:
            if self.reads(sender.number, key, shape):
                raise PlanError(
                    f"leaf {quote(way.fills)} can be saved as {quote(first.key)} by the rule '{first.rule}' and as "
                    f"{quote(key)} by the rule '{rule}': save it by the plan that loaded it, or leave one of the rules "
                    "out"
                )

    def claim(self, way: Way, stack: Shape | None) -> Claim | None:
        """Who has taken a place, or what lies above or below it."""
        if stack is None:
            return self.by_leaf.get(way.fills)
        claims = self.by_name.get(way.name, {})
        above = (claims.get(stack[:depth]) for depth in range(len(stack), -1, -1))
        return next((claim for claim in above if claim is not None), None) or next(iter(claims.values()), None)

    def reads(self, number: int, key: str, shape: Shape) -> bool:
        """Whether a load would give this key to the rule, and to none before it."""
        sents, _ = send(self.rules[: number + 1], KeyTable.of({key: Spec(np.dtype(np.uint8), shape)}))
        return any(sent.number == number for sent in sents)


def _part_of(rule: Rule) -> str:
    return part(None if rule.leaf is None else rule.leaf.axes)


@cache
def more_general(name: Name, sizes: Sizes, than: Name, than_sizes: Sizes) -> bool:
    """Whether `name` matches all names that `than` does, and more."""
    own, other = dict(sizes), dict(than_sizes)
    return _covers(name, own, than, other) and not _covers(than, other, name, own)


def _covers(name: Name, sizes: Mapping[str, int], other: Name, others: Mapping[str, int]) -> bool:
    """Whether `name` matches every sample of `other`."""
    pattern = Pattern(name)
    return all(_matches(pattern, sizes, text) for text in _samples(other, others))


def _matches(pattern: Pattern, sizes: Mapping[str, int], text: str) -> bool:
    """Whether a pattern matches a name, selections of its indices included."""
    found = pattern.match(text)
    return found is not None and all(
        Codec.of(variable, sizes).decode(int(number)) is not None
        for variable, number in zip(pattern.variables, found, strict=True)
        if isinstance(variable, Hole)
    )


def _samples(name: Name, sizes: Mapping[str, int]) -> Iterator[str]:
    """Names that `name` matches: each variable in turn takes its values while the others keep their first."""
    places = [(s, p) for s, segment in enumerate(name.segments) for p in range(len(segment))]
    values = {(s, p): _values(name.segments[s][p], sizes) for s, p in places}
    if not all(values.values()):
        return
    first = {place: found[0] for place, found in values.items()}
    yield _spelled(name, first)
    for place, found in values.items():
        for value in found[1:]:
            yield _spelled(name, {**first, place: value})


def _values(piece: Piece, sizes: Mapping[str, int]) -> list[str]:
    """Texts that a piece stands for."""
    if isinstance(piece, str):
        return [piece]
    if isinstance(piece, Choice):
        return list(piece.labels)
    if isinstance(piece, Wild):
        return list(_DEEP if piece.deep else _TEXTS)
    codec = Codec.of(piece, sizes)
    numbers = [codec.encode([place] * len(piece.indices)) for place in _PLACES]
    return [str(number) for number in numbers if number is not None]


def _spelled(name: Name, texts: Mapping[tuple[int, int], str]) -> str:
    """A name of these texts; `**` that is empty takes its dot along."""
    segments = ["".join(texts[s, p] for p in range(len(segment))) for s, segment in enumerate(name.segments)]
    deep = [len(segment) == 1 and isinstance(segment[0], Wild) and segment[0].deep for segment in name.segments]
    return ".".join(text for text, any_number in zip(segments, deep, strict=True) if text or not any_number)
