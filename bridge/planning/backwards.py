"""What a model is saved as by rules alone: which keys, of which shapes, and which rule writes a leaf that several name.

A leaf goes to the first rule that names it, if each later one is more general: its leaf side matches all names that the
first's does, and more. Between two that are equally particular nothing decides.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from bridge._errors import PlanError
from bridge._text import quote
from bridge.mapping.bind import INFERENCE, bind_keys
from bridge.mapping.keynames import KeySpeller, SpelledKeys
from bridge.mapping.landing import ModelNames
from bridge.mapping.leafnames import LeafPart
from bridge.mapping.names import NameIndex
from bridge.mapping.pattern import NamePattern, encoded, matches
from bridge.mapping.template import Spec, Template, branch_names
from bridge.rules.rule import Rule
from bridge.rules.syntax import Choice, Name, NamePiece, Wild

Sizes = tuple[tuple[str, int], ...]
Place = tuple[int, ...]

COUNTER = Spec(np.dtype("i8"), ())
"""What PyTorch has of a layer beside its parameters where a layout drops a scalar."""
_POSITIONS = (0, 1, 2, 3, 11, 997)  # enough to tell one selection from another
_TEXTS = ("\ue000", "\ue000x", "")  # what no rule and no model is called
_DEEP = ("\ue000", "\ue000.\ue001.\ue002", "")


class Claim(NamedTuple):
    """A rule that has taken places of a leaf, how it names the leaf, and the keys that these are saved as."""

    number: int
    rule: Rule
    spelled: SpelledKeys

    def key(self, place: Place) -> str:
        """The key at a place of the leaf, or at the first part of it."""
        pairs = zip(self.spelled.keys, self.spelled.places, strict=True)
        return next(key for key, own in pairs if _part(own, place))


ClaimsByLeaf = dict[int, dict[Place, list[Claim]]]
"""The claims on a leaf, by place; places by how many axes they are positions along."""


def saved_specs(rules: Sequence[Rule], model: Template, left_out: Container[str] = ()) -> dict[str, Spec]:
    """What every key looks like that the leaves of `model` are saved as; dtypes are the leaves'.

    Each leaf goes where `rules` say; one that none of them names goes under its own name, through its layout. Those in
    `left_out` go nowhere.

    **Raises:** `PlanError` where the leaves do not tell a key, or two rules name a leaf and nothing decides.
    """
    names = ModelNames(model)
    speller = KeySpeller(names)
    claims = _Claims(rules, names)
    out = {number for number, name in enumerate(names.table.names) if name in left_out}
    specs: dict[str, Spec] = {}
    copies: list[SpelledKeys] = []
    named: set[int] = set()
    for number, rule in enumerate(rules):
        if rule.leaf is None or rule.alt:
            continue
        found = list(speller.spell(rule))
        named.update(target.leaf for spelled in found for target in spelled.targets)
        found = [each for each in found if not all(target.leaf in out for target in each.targets)]
        if rule.copy:
            copies += found
            continue
        for spelled in found:
            keys = spelled.keys if rule.tie else claims.take(number, rule, spelled)
            if keys and any(pair.alone for pair in rule.pairing):
                raise PlanError(*_branches_text(names, rule, spelled, found, keys[0]))
            for key in keys:
                specs.setdefault(key, spelled.spec)
    specs |= {key: spelled.spec for spelled in copies for key in spelled.keys if key not in specs}
    for leaf, rule in speller.leaves.stacked.items():
        if leaf not in claims.leaves and leaf not in out:
            raise PlanError(*_stack_text(names, leaf, rule, speller))
    if not named and any(rule.leaf is not None for rule in rules):
        shown = ", ".join(f"'{rule}'" for rule in rules[:3])
        raise PlanError(
            model.kind, f"has no leaf that the rules name ({shown})", "Name its leaves; '** -> **' names all"
        )
    named |= out
    for spelled in speller.spell(INFERENCE, named):
        unnamed = named.isdisjoint(target.leaf for target in spelled.targets)
        for key in claims.take(len(rules), INFERENCE, spelled) if unnamed else ():
            specs.setdefault(key, spelled.spec)
    counters = dict.fromkeys(_counters(names, claims), COUNTER)
    return counters | specs


def _counters(names: ModelNames, claims: _Claims) -> Iterator[str]:
    """The keys of scalars that layouts drop and the way back writes as zeros, beside the other keys of their layers.

    No leaf holds them: it is PyTorch that wants them there.
    """
    for number, layer in enumerate(names.model.placed):
        own = [rule.keys[0] for rule in layer.rules if rule.leaf is None and rule.zeros]
        for rule in layer.rules if own and layer.tied_at is None else ():
            if rule.leaf is None or len(rule.keys) > 1:
                continue
            port, leaf = branch_names(rule, 0)[0], names.filled_by(number, rule)[0]
            for key in claims.keys(leaf):
                if f".{key}".endswith(f".{port}"):
                    yield from (f"{key[: -len(port)]}{side.name}" for side in own if side.axes == ())


def _stack_text(names: ModelNames, leaf: int, rule: Rule, speller: KeySpeller) -> tuple[str, str, str]:
    """A stack of layers that no rule takes apart is nothing that PyTorch could read."""
    name, shape = names.table.names[leaf], names.table.spec(leaf).shape
    count = " × ".join(map(str, shape[: max(speller.leaves.depths[leaf])]))
    layer = speller.leaves.layers[leaf]
    return (
        f"leaf {quote(name)}",
        f"is a stack of {count} layers, and the rule '{rule}' does not say where their index goes in the keys",
        f"Write a rule that does, such as '{layer}.{{l}}.** -> {layer}.{{l}}.**'",
    )


def _branches_text(
    names: ModelNames, rule: Rule, spelled: SpelledKeys, found: Sequence[SpelledKeys], first: str
) -> tuple[str, str, str]:
    """Which branch of a choice that stands on the key side alone was read, a plan knows."""
    leaf, place = names.table.names[spelled.targets[0].leaf], spelled.places[spelled.keys.index(first)]
    alike = [other for other in found if (other.targets, other.spec) == (spelled.targets, spelled.spec)]
    keys = [key for other in alike for key, own in zip(other.keys, other.places, strict=True) if own == place]
    shown = " or as ".join(map(quote, dict.fromkeys(keys)))
    return (
        f"leaf {quote(leaf)}",
        f"can be saved as {shown} by the rule '{rule}'",
        "Save it by the plan that loaded it, or by a rule that names one of them",
    )


class _Claims:
    """The places of leaves that rules have taken."""

    def __init__(self, rules: Sequence[Rule], names: ModelNames) -> None:
        self.rules, self.names = rules, names
        self.leaves: dict[int, ClaimsByLeaf] = {}
        self.first: dict[int, int] = {}
        """Of each leaf the first rule that spells keys for it."""

    def take(self, number: int, rule: Rule, spelled: SpelledKeys) -> Sequence[str]:
        """Take places for a rule, but those that one before it has; for these, this one has to be more general.

        **Returns:** the keys of the places that it got. **Raises:** `PlanError` where it is not.
        """
        leaves = {target.leaf for target in spelled.targets}
        if {self.first.setdefault(leaf, number) for leaf in leaves} != {number}:
            rows = [row for row in range(len(spelled.keys)) if self.is_free(number, rule, spelled, row)]
            keys, places = [spelled.keys[row] for row in rows], [spelled.places[row] for row in rows]
            spelled = spelled._replace(keys=keys, places=places)
        claim = Claim(number, rule, spelled)
        for leaf in leaves if spelled.keys else ():
            claims = self.leaves.setdefault(leaf, {}).setdefault(len(spelled.places[0]), {})
            for place in spelled.places:
                claims.setdefault(place, []).append(claim)
        return spelled.keys

    def keys(self, leaf: int) -> Iterator[str]:
        """The keys that a leaf is saved as."""
        claims = (claim for by_place in self.leaves.get(leaf, {}).values() for at in by_place.values() for claim in at)
        for spelled in {id(claim.spelled): claim.spelled for claim in claims}.values():
            yield from spelled.keys

    def is_free(self, number: int, rule: Rule, spelled: SpelledKeys, row: int) -> bool:
        """Whether no rule before has one of the places. **Raises:** `PlanError` where one has that is as general."""
        for target in spelled.targets:
            for claim in _at(self.leaves.get(target.leaf, {}), spelled.places[row]):
                if claim.number != number and any(_overlap(target, other) for other in claim.spelled.targets):
                    self.check(claim, number, rule, spelled, row)
                    return False
        return True

    def check(self, claim: Claim, number: int, rule: Rule, spelled: SpelledKeys, row: int) -> None:
        """Raise where the later rule could be the one that the leaf was loaded by."""
        if more_general(spelled.as_named, rule.sizes, claim.spelled.as_named, claim.rule.sizes):
            return
        key = spelled.keys[row]
        if number in bind_keys(self.rules[: number + 1], NameIndex([key])).used:
            leaf, other = self.names.table.names[spelled.targets[0].leaf], claim.key(spelled.places[row])
            raise PlanError(
                f"leaf {quote(leaf)}",
                f"can be saved as {quote(other)} by the rule '{claim.rule}' and as {quote(key)} by the rule '{rule}'",
                "Save it by the plan that loaded it, or mark the rule that is only for reading with alt=true",
            )


def _overlap(one: LeafPart, other: LeafPart) -> bool:
    """Whether two targets are the same elements of a leaf. Terms of a sum stand side by side."""
    apart = one.term is not None and other.term is not None and one.term != other.term
    return one.leaf == other.leaf and one.part == other.part and not apart


def _at(claims: ClaimsByLeaf, place: Place) -> Iterator[Claim]:
    """The claims on a place, on what it is a part of, and on parts of it."""
    for depth in sorted(claims):
        if depth <= len(place):
            yield from claims[depth].get(place[:depth], ())
            continue
        for other, found in claims[depth].items():
            if _part(other, place):
                yield from found


def _part(one: Place, other: Place) -> bool:
    """Whether a place is another one, or a part of it, or has it for a part."""
    depth = min(len(one), len(other))
    return one[:depth] == other[:depth]


@cache
def more_general(name: Name, sizes: Sizes, than: Name, than_sizes: Sizes) -> bool:
    """Whether `name` matches all names that `than` does, and more."""
    own, other = dict(sizes), dict(than_sizes)
    return _covers(name, own, than, other) and not _covers(than, other, name, own)


def _covers(name: Name, sizes: Mapping[str, int], other: Name, others: Mapping[str, int]) -> bool:
    """Whether `name` matches every sample of `other`."""
    pattern = NamePattern(name)
    return all(matches(pattern, sizes, text) for text in _samples(other, others))


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


def _values(piece: NamePiece, sizes: Mapping[str, int]) -> list[str]:
    """Texts that a piece stands for."""
    if isinstance(piece, str):
        return [piece]
    if isinstance(piece, Choice):
        return list(piece.labels)
    if isinstance(piece, Wild):
        return list(_DEEP if piece.deep else _TEXTS)
    columns = {index.name: np.array(_POSITIONS) for index in piece.indices}
    numbers = encoded(piece, sizes, columns, len(_POSITIONS)).tolist()
    return [str(number) for number in numbers if number >= 0]


def _spelled(name: Name, texts: Mapping[tuple[int, int], str]) -> str:
    """A name of these texts; `**` that is empty takes its dot along."""
    segments = ["".join(texts[s, p] for p in range(len(segment))) for s, segment in enumerate(name.segments)]
    deep = [len(segment) == 1 and isinstance(segment[0], Wild) and segment[0].deep for segment in name.segments]
    return ".".join(text for text, any_number in zip(segments, deep, strict=True) if text or not any_number)
