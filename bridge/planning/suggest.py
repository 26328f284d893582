"""Which unused keys a missing leaf may have meant, and the rule that would say so."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from itertools import product
from math import prod

from bridge._text import fold, plain, plain_pieces, template
from bridge.mapping.indexmap import Shape
from bridge.rules.syntax import Hole, Index, Name, Segment, Side, literal

_CANDIDATES = 20_000
_CLOSE = 0.55
_WORDS = re.compile(r"[._]|(?<=[a-z])(?=[A-Z])")


@dataclass(slots=True)
class Group:
    """Names that differ only in indices."""

    text: str
    names: dict[Shape, str] = field(default_factory=dict[Shape, str])

    @property
    def shown(self) -> list[str]:
        """The names, folded."""
        return [name for name, _ in fold(self.names.values())]


def grouped(names: Iterable[str]) -> list[Group]:
    """Names by what is left of them without their indices."""
    groups: dict[str, Group] = {}
    for name in names:
        text, indices = template(name)
        groups.setdefault(text, Group(text)).names[indices] = name
    return list(groups.values())


class Suggestions:
    """Finds keys among the unused ones. Looks at names and shapes, proposes only what fits whole."""

    def __init__(self, unused: Iterable[str], shapes: Mapping[str, Shape]) -> None:
        self.by_shape: dict[Shape, list[tuple[Group, frozenset[str]]]] = {}
        for group in grouped(unused):
            found = {shapes[key] for key in group.names.values()}
            if len(found) == 1:
                self.by_shape.setdefault(found.pop(), []).append((group, _words(group.text)))

    def near(self, names: Sequence[str], keys: Sequence[str], shape: Shape, places: Sequence[Shape]) -> Group | None:
        """The unused keys that look most like those that are missing.

        `names` are leaves of one name up to indices, each of `shape`; `keys` those that would fill them, as far as that
        is known. Where only `places` of one stacked leaf are missing, a key for each is sought.
        """
        wanted = template(keys[0] if keys else names[0])[0]
        found: list[tuple[float, Group]] = []
        for depth in (len(places[0]),) if places else range(len(shape) + 1):
            candidates = self.by_shape.get(shape[depth:], [])
            words = _words(wanted)
            ranked = sorted(candidates[:_CANDIDATES], key=lambda entry: -len(words & entry[1]))[:50]
            for group, _ in ranked:
                if group.text != wanted and _fits(group, names, shape[:depth], places):
                    found.append((SequenceMatcher(None, wanted, group.text).ratio(), group))
        score, best = max(found, key=lambda entry: entry[0], default=(0.0, None))
        return best if score >= _CLOSE else None


def _words(text: str) -> frozenset[str]:
    return frozenset(_WORDS.split(text))


def _fits(group: Group, names: Sequence[str], lead: Shape, places: Sequence[Shape]) -> bool:
    """Whether the keys of `group` are one for each leaf, or one for each index of each stacked leaf."""
    if places:
        return set(group.names) == set(places)
    if lead and len(group.names) != len(names) * prod(lead):
        return False
    stacks = list(product(*map(range, lead)))
    return set(group.names) == {template(name)[1] + stack for name in names for stack in stacks}


def rule_for(group: Group, name: str) -> str:
    """The rule that sends the keys of `group` to a leaf, or to a list of them: `h.{i}.w -> layers.w`."""
    key, leaf = _pattern(group.text), _pattern(template(name)[0])
    return f"{key} -> {leaf}"


def _pattern(text: str) -> Side:
    """A template as a side of a rule, its indices called i, j, k …"""
    indices = iter("ijklmnop")
    segments: list[Segment] = []
    for segment in text.split("."):
        name = next(indices, None) if segment == "{}" else None
        segments.append((Hole((Index(name),)),) if name else (plain(segment),) if segment else ())
    return Side(Name(tuple(segments)))


def pattern_for(group: Group, tails: Mapping[str, int]) -> str:
    """A pattern that matches these names and, by `tails`, no other key."""
    if len(group.names) == 1:
        return str(literal(next(iter(group.names.values()))))
    end = tail(group.text)
    if "{}" not in end and tails.get(end) == len(group.names):
        return f"**.{literal(plain(end))}"
    return "*".join(str(literal(piece)) if piece else "" for piece in plain_pieces(group.text))


def tail(text: str) -> str:
    """The last two segments of a name, or what there is."""
    return ".".join(text.rsplit(".", 2)[-2:])
