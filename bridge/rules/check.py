"""What makes a parsed rule an index map: every variable meets its other end, once.

Done when a rule is made, so that whatever uses a rule later may rely on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod
from typing import NoReturn

from bridge.rules.options import WORDS, Options, fail
from bridge.rules.parse import Parsed
from bridge.rules.syntax import Choice, Hole, Index, JoinedParts, PartExtent, Rest, Side, Wild

_MOST_BRANCHES = 10_000
_RENAME = "Give this one another name"


class PairedChoice:
    """One choice, seen from every side: `labels[side][pick]`, the leaf side last.

    `parts[side]` is the axis that holds the choice there, or `None` where the name does; then `places[side]` is its
    place among the choices of that name. A choice that stands on the key side alone has neither on the leaf side, and
    no labels there.
    """

    __slots__ = ("labels", "parts", "places")

    def __init__(
        self, labels: tuple[tuple[str, ...], ...], parts: tuple[JoinedParts | None, ...], places: tuple[int | None, ...]
    ) -> None:
        self.labels, self.parts, self.places = labels, parts, places

    @property
    def branches(self) -> int:
        """How many branches there are."""
        return len(self.labels[0])

    @property
    def shaped(self) -> bool:
        """Whether an axis of some side holds the choice, so that its branches share extents."""
        return any(parts is not None for parts in self.parts)

    @property
    def alone(self) -> bool:
        """Whether the choice stands on the key side alone."""
        return not self.labels[-1]


Pairing = Sequence[PairedChoice]


def branch_count(pairing: Pairing) -> int:
    """How many combinations of picks there are."""
    return prod(pair.branches for pair in pairing)


def branch_picks(pairing: Pairing, branch: int) -> tuple[int, ...]:
    """Which label of each choice a branch takes; the last choice varies fastest."""
    picks: list[int] = []
    for pair in reversed(pairing):
        branch, pick = divmod(branch, pair.branches)
        picks.append(pick)
    return tuple(reversed(picks))


def shaped_branch(pairing: Pairing, picks: Sequence[int]) -> int:
    """The number of a branch among those that axes tell apart."""
    branch = 0
    for pair, pick in zip(pairing, picks, strict=True):
        branch = branch * pair.branches + pick if pair.shaped else branch
    return branch


def picked_labels(pairing: Pairing, side: int, picks: Sequence[int]) -> list[str]:
    """The labels of the choices in a side's name, in order."""
    labels = {
        pair.places[side]: pair.labels[side][k] for pair, k in zip(pairing, picks, strict=True) if pair.labels[side]
    }
    return [labels[place] for place in sorted(place for place in labels if place is not None)]


class _RuleChecker:
    """The sides of one rule, its options, and the text that they came from."""

    def __init__(self, text: str, parsed: Parsed, options: Options) -> None:
        self.text, self.keys, self.leaf = text, parsed.keys, parsed.leaf
        self.sides = parsed.keys if parsed.leaf is None else (*parsed.keys, parsed.leaf)
        self.given, self.options_at = options, parsed.options_at
        self.sizes = dict(options.sizes)

    def fail(self, problem: str, advice: str, at: int) -> NoReturn:
        fail(self.text, at, problem, advice)

    def drop(self) -> None:
        """One key at a time, whole or the elements that its axes select."""
        if len(self.keys) > 1:
            self.fail("'_' drops one key", "Write a rule for each", self.keys[1].at)
        for factor in next(iter(self.keys)).factors():
            if isinstance(factor, JoinedParts | PartExtent):
                self.fail(
                    "a rule that drops a key has no parts", "Select elements, as in 'w [m v[8:]] -> _'", factor.at
                )
        given = self.given
        if given.valued or given.flip or given.tie or given.copy or given.alt:
            self.fail("a rule that drops a key takes no option but 'zeros'", "Leave them out", self.options_at)

    def axes(self) -> None:
        """Axes on all sides or on none; `...` at most once, on all sides or on none."""
        if len({side.axes is None for side in self.sides}) > 1:
            bare = next(side for side in self.sides if side.axes is None)
            self.fail("this side has no axes, but the other has some", "Write axes on every side or on none", bare.at)
        found = [[axis for axis in side.axes or () if isinstance(axis, Rest)] for side in self.sides]
        for rests in found:
            if len(rests) > 1:
                self.fail("'...' appears twice in the axes of this side", "Leave one out", rests[1].at)
        if len(set(map(bool, found))) > 1:
            self.fail(
                "'...' appears on one side only",
                "Write it on every side or on none",
                next(rests[0].at for rests in found if rests),
            )

    def indices(self) -> None:
        """Each index once on a side, under a name of its own; the leaf side's are the key side's."""
        labels = {label for side in self.sides for parts in parts_of(side) for label in parts.labels}
        for side in self.sides:
            seen: set[str] = set()
            for index in all_indices(side):
                if index.name in seen:
                    self.fail(f"'{index.name}' appears twice on this side", "Give each its own name", index.at)
                if index.name in WORDS:
                    self.fail(f"'{index.name}' is the name of an option", _RENAME, index.at)
                if index.name in labels:
                    self.fail(f"'{index.name}' is the name of a part as well", _RENAME, index.at)
                seen.add(index.name)
            for hole in side.name.pieces():
                for index in hole.indices[1:] if isinstance(hole, Hole) else ():
                    if index.name not in self.sizes:
                        advice = f"Give their number as an option, such as '; {index.name}=6'"
                        self.fail(f"nothing says how many '{index.name}' there are", advice, index.at)
        if self.leaf is not None:
            self.leaf_selections(self.leaf)
            for key in self.keys:
                self.meet(key, self.leaf)

    def leaf_selections(self, leaf: Side) -> None:
        """A bound that counts from the end needs something to count: keys are there, leaves' names are not."""
        for index in leaf.name.indices():
            if index.selection is None:
                continue
            counted = index.name in self.sizes
            if not counted and not index.selection.bounded:
                self.fail(
                    f"'{index}' counts from the end, which is not possible on the leaf side",
                    "Write bounds from 0 up",
                    index.at,
                )

    def meet(self, key: Side, leaf: Side) -> None:
        """Whatever an axis of one side is called stands on the other; an index may leave the name."""
        key_names, leaf_names = ({i.name for i in all_indices(side)} for side in (key, leaf))
        named = {i.name for i in key.name.indices()}
        alone = {i.name for i in all_indices(leaf) if i.single}
        for index in all_indices(leaf):
            if index.name not in key_names and index.name not in alone:
                self.fail(f"'{index.name}' appears only on the leaf side", "Name it on the key side too", index.at)
        for index in all_indices(key):
            if index.name not in leaf_names and index.name not in named:
                self.fail(f"axis '{index.name}' appears only on the key side", "Name it on the leaf side too", index.at)

    def part(self, pairs: Pairing) -> None:
        """`_` stands where exactly one other side has parts."""
        for number, side in enumerate(self.sides):
            found = [factor for factor in side.factors() if isinstance(factor, PartExtent)]
            chosen = [p for p in pairs if p.parts[number] is None and p.shaped]
            if len(found) > 1:
                self.fail("'_' appears twice on this side", "Write it once", found[1].at)
            if found and len(chosen) != 1:
                many = "more than one axis of parts" if chosen else "no axis of parts such as '(q|k|v)'"
                self.fail(
                    f"'_' is the extent of a part, but the other side has {many}",
                    "Write '_' for one axis of parts",
                    found[0].at,
                )

    def options(self) -> None:
        """Options speak of axes that exist and do not contradict each other."""
        given, at = self.given, self.options_at
        names = {i.name for side in self.sides for i in all_indices(side)}
        labels = {label for side in self.sides for parts in parts_of(side) for label in parts.labels}
        for name in self.sizes.keys() - names - labels:
            self.fail(f"option '{name}' is not an axis, index or part of this rule", "Correct its name", at)
        axes = {f.name for side in self.sides for f in side.factors() if isinstance(f, Index)}
        for name in given.flip:
            if name not in axes:
                self.fail(f"flip: '{name}' is not an axis of this rule", "Name one of its axes", at)
        if len(self.keys) > 1 and (given.tie or given.copy):
            self.fail("a sum can be neither 'tie' nor 'copy'", "Leave the option out", at)
        if given.zeros and self.leaf is not None:
            self.fail("'zeros' is for a rule that drops its key", "Write 'x -> _ ; zeros=true'", at)
        if given.alt and (given.tie or given.copy):
            self.fail("'alt' is another spelling of a key, and so neither 'tie' nor 'copy'", "Leave one option out", at)
        if given.tie and given.copy:
            self.fail(
                "'tie' is a second key for one leaf, 'copy' a second leaf for one key", "Leave one option out", at
            )
        if given.tie and given.valued:
            self.fail(
                "a tie compares stored values, and so takes neither 'add' nor 'scale'", "Leave these options out", at
            )


def check(text: str, parsed: Parsed, options: Options) -> Pairing:
    """Check a parsed rule whole; returns how its choices pair.

    **Raises:** `RuleError`.
    """
    found = _RuleChecker(text, parsed, options)
    if parsed.leaf is None:
        found.drop()
    check_wildcards(text, parsed)
    found.axes()
    found.indices()
    pairs: Pairing = ()
    if parsed.leaf is not None and any(map(_has_choices, found.sides)):
        from bridge.rules.pairing import pair_choices  # most rules have no choices

        pairs = pair_choices(text, parsed.keys, parsed.leaf)
        if (count := branch_count(pairs)) > _MOST_BRANCHES:
            found.fail(
                f"the choices of this rule have {count:,} combinations, more than {_MOST_BRANCHES:,}",
                "Write several rules",
                0,
            )
    found.part(pairs)
    found.options()
    return pairs


def check_wildcards(text: str, parsed: Parsed) -> None:
    """`*` and `**` carry over in order, so each side has as many of each. **Raises:** `RuleError`."""
    for deep, shown in ((False, "*"), (True, "**")):
        counts = [_wilds(side, deep=deep) for side in parsed.keys]
        if len(set(map(len, counts))) > 1:
            fail(
                text,
                parsed.keys[1].at,
                f"the terms of this sum do not have equally many '{shown}'",
                "Write as many in each",
            )
        if parsed.leaf is not None and len(found := _wilds(parsed.leaf, deep=deep)) != len(counts[0]):
            at = (found or counts[0])[-1].at
            fail(
                text,
                at,
                f"'{shown}' does not appear equally often on both sides",
                "Write as many on each",
            )


def parts_of(side: Side) -> list[JoinedParts]:
    """The axes of a side that are made of parts."""
    return [factor for factor in side.factors() if isinstance(factor, JoinedParts)]


def _has_choices(side: Side) -> bool:
    return any(isinstance(piece, Choice) for piece in side.name.pieces()) or bool(parts_of(side))


def _wilds(side: Side, *, deep: bool) -> list[Wild]:
    return [piece for piece in side.name.pieces() if isinstance(piece, Wild) and piece.deep is deep]


def all_indices(side: Side) -> Iterable[Index]:
    """The index variables of a name and of its axes."""
    yield from side.name.indices()
    yield from (factor for factor in side.factors() if isinstance(factor, Index))
