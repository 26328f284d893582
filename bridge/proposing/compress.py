"""Many flat rules as few: what a person would write. Accepted only where the plan stays the same.

`a.x.weight -> b.x.weight` and its bias become `a.x.** -> b.x.**`; modules beside each other become a choice,
`{q|k|v}_proj.** -> {query|key|value}.**`; what goes by its own name needs no rule.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from bridge.proposing.meanings import role_of, snake
from bridge.proposing.spelling import choice
from bridge.proposing.synonyms import ATTRIBUTES

_RULE = re.compile(r"(.*?)( \[[^\]]*(?:\[[^\]]*\][^\]]*)*\])? -> (.*?)( \[[^\]]*(?:\[[^\]]*\][^\]]*)*\])?( ; .*)?")
_TOGETHER = {
    **dict.fromkeys(("q", "k", "v", "o", "q_norm", "k_norm"), "attention"),
    **dict.fromkeys(("gate", "up", "down"), "mlp"),
    **dict.fromkeys(("emb", "pos", "type"), "embeddings"),
}
_ARRAYS = frozenset(word for words in ATTRIBUTES.values() for word in words.split())
_SIZES = re.compile(r" ; \w+=\d+")
_PLAIN = re.compile(r"[\w-]+")
_NUMBER = re.compile(r"\{[^|]*?\}|^\d+$")


class Flat(NamedTuple):
    """A rule as segments of its names, its axes and options."""

    key: tuple[str, ...]
    key_axes: str
    leaf: tuple[str, ...]
    leaf_axes: str
    options: str

    @classmethod
    def of(cls, text: str) -> Flat:
        """From its text."""
        found = _RULE.fullmatch(text)
        assert found is not None, text
        key, key_axes, leaf, leaf_axes, options = (part or "" for part in found.groups())
        return cls(_segments(key), key_axes, _segments(leaf), leaf_axes, options)

    @property
    def plain(self) -> bool:
        """Whether it only renames; how many layers there are in a group may be said."""
        return not (self.key_axes or self.leaf_axes) and (
            not self.options or _SIZES.fullmatch(self.options) is not None
        )

    def __str__(self) -> str:
        key, leaf = (".".join(segments) or "''" for segments in (self.key, self.leaf))
        return f"{key}{self.key_axes} -> {leaf}{self.leaf_axes}{self.options}"


def compressed(
    texts: Sequence[str], same: Callable[[Sequence[str]], bool], others: Iterable[str] = (), *, all_said: bool = False
) -> list[str]:
    """The fewest rules that say the same, as far as simple means go.

    **Arguments:**

    - `texts`: flat rules, one for each family of keys.
    - `same`: whether rules come to the same as `texts`.
    - `others`: names of keys that these rules must leave alone.
    - `all_said`: whether a rule stays that says what holds anyway.
    """
    flat = [Flat.of(text) for text in dict.fromkeys(texts)]
    blocked = [_segments(name) for name in others]
    tails = _with_tails(flat, blocked)
    own = [] if all_said else [_with_choices(_without_own(tails))]
    for tried in (*own, _with_choices(tails), tails, _with_choices(flat)):
        found = [str(rule) for rule in tried]
        if found == list(map(str, flat)) or (len(found) <= len(flat) and same(found)):
            return found
    return list(map(str, flat))


def briefly(texts: Sequence[str]) -> list[str]:
    """Flat rules that only rename, and are all there are for their keys, as few."""
    return list(map(str, _with_choices(_without_own(_with_tails([Flat.of(text) for text in texts], ())))))


def swept(texts: Sequence[str], others: Iterable[str] = ()) -> dict[str, list[str]]:
    """Flat rules by the rule with `**` that says each: what goes along below a name on both sides.

    **Arguments:** as `compressed` has them.
    """
    flat = [Flat.of(text) for text in texts]
    blocked = [_segments(name) for name in others]
    found: dict[str, list[str]] = {}
    for text, rule in zip(texts, flat, strict=True):
        found.setdefault(str(_with_tail(rule, flat, blocked)), []).append(text)
    return found


def key_side(rule: str) -> str:
    """The name of a flat rule's key."""
    return ".".join(Flat.of(rule).key) or "''"


def _segments(name: str) -> tuple[str, ...]:
    return tuple(name.split(".")) if name != "''" else ()


def _meet(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether two names may be the same one, or one the beginning of the other; `{l[:3]}` and `{l[3:]}` are not."""
    for a, b in zip(one, other, strict=False):
        if a == b:
            continue
        if not (_NUMBER.fullmatch(a) and _NUMBER.fullmatch(b)) or ("[" in a and "[" in b):
            return False
    return True


def _with_tails(rules: Sequence[Flat], blocked: Sequence[tuple[str, ...]]) -> list[Flat]:
    """Rules that only rename, `**` for all that goes along below a name on both sides."""
    return list(dict.fromkeys(_with_tail(rule, rules, blocked) for rule in rules))


def _with_tail(rule: Flat, rules: Sequence[Flat], blocked: Sequence[tuple[str, ...]]) -> Flat:
    best = rule
    for tail in range(1, _shared(rule) + 1 if rule.plain else 0):
        key, leaf = rule.key[: len(rule.key) - tail], rule.leaf[: len(rule.leaf) - tail]
        below = [each for each in rules if len(each.key) > len(key) and _meet(each.key, key)]
        if not all(_goes_along(each, key, leaf, rule.options) for each in below):
            break
        if any(_meet(name, key) for name in blocked):
            break
        if _NUMBER.search(".".join(rule.key[len(key) :])) and len(below) == 1:
            break
        best = Flat((*key, "**"), "", (*leaf, "**"), "", rule.options)
    return best


def _shared(rule: Flat) -> int:
    """How many last segments both names have in common."""
    count = 0
    for a, b in zip(reversed(rule.key), reversed(rule.leaf), strict=False):
        if a != b:
            break
        count += 1
    return count


def _goes_along(rule: Flat, key: tuple[str, ...], leaf: tuple[str, ...], options: str) -> bool:
    return (
        rule.plain
        and rule.options == options
        and rule.key[: len(key)] == key
        and rule.leaf == (*leaf, *rule.key[len(key) :])
    )


def _with_choices(rules: Sequence[Flat]) -> list[Flat]:
    """Rules that differ in one segment on each side as one rule with a choice."""
    left = list(rules)
    groups: dict[tuple[object, ...], list[Flat]] = {}
    for rule in rules:
        for p, q in _places(rule):
            kin = "same" if rule.key[p] == rule.leaf[q] else _kin(rule.leaf[q]) or _kin(rule.key[p])
            if kin:
                kind = (_without(rule.key, p), p, _without(rule.leaf, q), q, kin, *_axes(rule))
                groups.setdefault(kind, []).append(rule)
    for (_, p, _, q, *_), group in sorted(groups.items(), key=lambda item: -len(item[1])):
        assert isinstance(p, int)
        assert isinstance(q, int)
        members = [rule for rule in group if rule in left]
        if len(members) < 2 or len({rule.leaf[q] for rule in members}) < len(members):
            continue
        if len({rule.key[p] for rule in members}) < len(members):
            continue
        at = left.index(members[0])
        left = [rule for rule in left if rule not in members]
        first = members[0]
        key = (*first.key[:p], choice([rule.key[p] for rule in members])[0], *first.key[p + 1 :])
        leaf = (*first.leaf[:q], choice([rule.leaf[q] for rule in members])[0], *first.leaf[q + 1 :])
        left.insert(at, first._replace(key=key, leaf=leaf))
    return left


def _kin(label: str) -> str:
    """What a label is one of several of: a person writes these on one line, and others on lines of their own."""
    segment = snake(label)
    if segment in _ARRAYS:
        return "array"
    role = role_of(segment)
    if role in _TOGETHER:
        return _TOGETHER[role]
    stem = segment.rstrip("0123456789_")
    return (
        "norm" if "norm" in role else stem if stem != segment else segment.rpartition("_")[2] if "_" in segment else ""
    )


def _axes(rule: Flat) -> tuple[str, str, str]:
    return rule.key_axes, rule.leaf_axes, rule.options


def _places(rule: Flat) -> list[tuple[int, int]]:
    """Where a choice could stand on both sides."""
    if any("|" in segment for segment in (*rule.key, *rule.leaf)):
        return []
    key = [p for p, segment in enumerate(rule.key) if _PLAIN.fullmatch(segment)]
    leaf = [q for q, segment in enumerate(rule.leaf) if _PLAIN.fullmatch(segment)]
    return [(p, q) for p in key for q in leaf]


def _without(segments: tuple[str, ...], place: int) -> tuple[str, ...]:
    return (*segments[:place], *segments[place + 1 :])


def _without_own(rules: Sequence[Flat]) -> list[Flat]:
    """Without rules that say what holds anyway: a leaf's own name is its key."""
    return [rule for rule in rules if rule.options or not (rule.plain and rule.key == rule.leaf)]
