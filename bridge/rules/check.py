"""What makes a parsed rule an index map: every variable meets its other end, once.

Done when a rule is made, so that whatever uses a rule later may rely on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import NoReturn

from bridge.rules.parse import fail
from bridge.rules.syntax import Choice, Hole, Index, Part, Parts, Rest, Side, Wild

_WORDS = frozenset({"add", "scale", "flip", "tie", "copy"})


@dataclass(frozen=True, slots=True)
class Pair:
    """One choice, seen from every side: `labels[side][pick]`, the leaf side last.

    `parts[side]` is the axis that holds the choice there, or `None` where the name does; then `places[side]` is its
    place among the choices of that name.
    """

    labels: tuple[tuple[str, ...], ...]
    parts: tuple[Parts | None, ...]
    places: tuple[int | None, ...]

    @property
    def count(self) -> int:
        """How many branches there are."""
        return len(self.labels[0])

    @property
    def shaped(self) -> bool:
        """Whether an axis of some side holds the choice, so that its branches share extents."""
        return any(parts is not None for parts in self.parts)


Pairing = tuple[Pair, ...]


def branch_count(pairing: Pairing) -> int:
    """How many combinations of picks there are."""
    return prod(pair.count for pair in pairing)


def branch_picks(pairing: Pairing, branch: int) -> tuple[int, ...]:
    """Which label of each choice a branch takes; the last choice varies fastest."""
    picks: list[int] = []
    for pair in reversed(pairing):
        branch, pick = divmod(branch, pair.count)
        picks.append(pick)
    return tuple(reversed(picks))


def picked_labels(pairing: Pairing, side: int, picks: Sequence[int]) -> list[str]:
    """The labels of the choices in a side's name, in order."""
    labels = {pair.places[side]: pair.labels[side][k] for pair, k in zip(pairing, picks, strict=True)}
    return [labels[place] for place in sorted(place for place in labels if place is not None)]


class _Check:
    """The sides of one rule and the text that they came from."""

    def __init__(self, text: str, keys: tuple[Side, ...], leaf: Side | None) -> None:
        self.text, self.keys, self.leaf = text, keys, leaf

    def fail(self, problem: str, at: int) -> NoReturn:
        fail(self.text, at, problem)

    def wildcards(self) -> None:
        """`*` and `**` carry over in order, so each side has as many of each."""
        for deep, shown in ((False, "*"), (True, "**")):
            counts = [_wilds(side, deep=deep) for side in self.keys]
            if len(set(map(len, counts))) > 1:
                self.fail(f"the terms of a sum need equally many '{shown}'", self.keys[1].at)
            if self.leaf is not None and len(found := _wilds(self.leaf, deep=deep)) != len(counts[0]):
                at = (found or counts[0])[-1].at
                self.fail(f"'{shown}' carries over from key to leaf: both sides need equally many of them", at)

    def axes(self) -> None:
        """Axes on all sides or on none; `...` at most once, on all sides or on none."""
        sides = self.keys if self.leaf is None else (*self.keys, self.leaf)
        if len({side.axes is None for side in sides}) > 1:
            bare = next(side for side in sides if side.axes is None)
            self.fail("axes stand on every side of a rule or on none: this side has none", bare.at)
        for side in sides:
            rests = [axis for axis in side.axes or () if isinstance(axis, Rest)]
            if len(rests) > 1:
                self.fail("'...' stands at most once in the axes of one side", rests[1].at)
        with_rest = {any(isinstance(axis, Rest) for axis in side.axes or ()) for side in sides}
        if len(with_rest) > 1:
            rest = next(axis for side in sides for axis in side.axes or () if isinstance(axis, Rest))
            self.fail("'...' stands on every side or on none", rest.at)

    def indices(self, sizes: dict[str, int]) -> None:
        """Each index once on each side; on the key side all of the leaf's; sizes for all but the first of a product."""
        for side in self.keys if self.leaf is None else (*self.keys, self.leaf):
            seen: set[str] = set()
            for index in all_indices(side):
                if index.name in seen:
                    self.fail(f"'{index.name}' stands twice on this side", index.at)
                if index.name in _WORDS:
                    self.fail(f"'{index.name}' is an option's name: call this one otherwise", index.at)
                seen.add(index.name)
            for hole in side.name.pieces():
                for index in hole.indices[1:] if isinstance(hole, Hole) else ():
                    if index.name not in sizes:
                        problem = f"how many '{index.name}' there are must be an option: '; {index.name}=6'"
                        self.fail(problem, index.at)
        if self.leaf is not None:
            for key in self.keys:
                self.meet(key, self.leaf)

    def meet(self, key: Side, leaf: Side) -> None:
        """Whatever an axis of one side is called stands on the other; an index may leave the name."""
        key_names, leaf_names = ({i.name for i in all_indices(side)} for side in (key, leaf))
        named = {i.name for i in key.name.indices()}
        for index in all_indices(leaf):
            if index.name not in key_names:
                self.fail(f"'{index.name}' stands only on the leaf side: the key side must say what it is", index.at)
        for index in all_indices(key):
            if index.name not in leaf_names and index.name not in named:
                self.fail(f"axis '{index.name}' stands only on the key side: the leaf side must say where it goes", index.at)

    def part(self, pairs: Pairing) -> None:
        """`_` stands where exactly one other side has parts."""
        sides = self.keys if self.leaf is None else (*self.keys, self.leaf)
        for number, side in enumerate(sides):
            found = [factor for factor in side.factors() if isinstance(factor, Part)]
            chosen = [p for p in pairs if p.parts[number] is None and p.shaped]
            if len(found) > 1:
                self.fail("'_' stands at most once on a side", found[1].at)
            if found and len(chosen) != 1:
                many = "more than one axis of parts" if chosen else "no axis of parts such as '(q|k|v)'"
                self.fail(f"'_' is the extent of a part, but the other side has {many}", found[0].at)

    def options(self, *, sizes: dict[str, int], flip: tuple[str, ...], valued: bool, tie: bool, copy: bool) -> None:
        """Options speak of axes that exist and do not contradict each other."""
        at = self.text.find(";") if ";" in self.text else len(self.text)
        sides = self.keys if self.leaf is None else (*self.keys, self.leaf)
        names = {i.name for side in sides for i in all_indices(side)}
        labels = {label for side in sides for parts in _parts(side) for label in parts.labels}
        for name in sizes.keys() - names - labels:
            self.fail(f"option '{name}' is no axis, index or part of this rule", at)
        axes = {f.name for side in sides for f in side.factors() if isinstance(f, Index)}
        for name in set(flip) - axes:
            self.fail(f"flip: '{name}' is no axis of this rule", at)
        if self.leaf is None and (valued or flip or tie or copy):
            self.fail("a rule that drops its key has no use for options", at)
        if len(self.keys) > 1 and (tie or copy):
            self.fail("a sum can be neither 'tie' nor 'copy'", at)
        if tie and copy:
            self.fail("'tie' is a second key for one leaf, 'copy' a second leaf for one key: a rule is one of them", at)
        if tie and valued:
            self.fail("a tie compares stored values: it takes neither 'add' nor 'scale'", at)


def check(
    text: str,
    keys: tuple[Side, ...],
    leaf: Side | None,
    *,
    sizes: dict[str, int],
    scale: float,
    add: float,
    flip: tuple[str, ...],
    tie: bool,
    copy: bool,
) -> Pairing:
    """Check a parsed rule whole; returns how its choices pair.

    **Raises:** `RuleError`.
    """
    found = _Check(text, keys, leaf)
    if leaf is None and len(keys) > 1:
        found.fail("a sum has a leaf to go to: drop keys one by one", keys[1].at)
    found.wildcards()
    found.axes()
    found.indices(sizes)
    pairs = _pair(found)
    found.part(pairs)
    found.options(sizes=sizes, flip=flip, valued=scale != 1 or add != 0, tie=tie, copy=copy)
    return pairs


def _pair(check: _Check) -> Pairing:
    """Pair the choices of the key sides with the leaf side's."""
    if check.leaf is None:
        return ()
    columns = [_pair_side(check, key, check.leaf) for key in check.keys]
    pairs: list[Pair] = []
    for number, mine in enumerate(_choices(check.leaf)):
        theirs = [column[number] for column in columns]
        # Branches are numbered as the first key side writes them.
        orders = [_leaf_order(mine, other) for other in theirs]
        first = orders[0]
        labels: list[tuple[str, ...]] = []
        for other, order in zip(theirs, orders, strict=True):
            back = {leaf: other.labels[branch] for branch, leaf in enumerate(order)}
            labels.append(tuple(back[leaf] for leaf in first))
        held = (*theirs, mine)
        parts = tuple(c if isinstance(c, Parts) else None for c in held)
        sides = (*check.keys, check.leaf)
        pairs.append(Pair((*labels, first), parts, tuple(_place(s, c) for s, c in zip(sides, held, strict=True))))
    return tuple(pairs)


def _place(side: Side, choice: Choice | Parts) -> int | None:
    """The place of `choice` among those of the side's name."""
    names = [piece for piece in side.name.pieces() if isinstance(piece, Choice)]
    return next((n for n, piece in enumerate(names) if piece is choice), None)


def _leaf_order(leaf: Choice | Parts, key: Choice | Parts) -> tuple[str, ...]:
    """The leaf's labels in the order of the key's: by label where an axis tells, else by position."""
    if set(leaf.labels) == set(key.labels) and (isinstance(leaf, Parts) or isinstance(key, Parts)):
        return key.labels
    return leaf.labels


def _pair_side(check: _Check, key: Side, leaf: Side) -> list[Choice | Parts]:
    """For each choice of the leaf side the key side's: the same labels if there are, else the next of its length."""
    left = list(_choices(key))
    chosen: dict[int, Choice | Parts] = {}
    wanted = list(enumerate(_choices(leaf)))
    for same in (True, False):
        for number, mine in wanted:
            if number in chosen:
                continue
            for other in left:
                if (set(other.labels) == set(mine.labels)) if same else (len(other.labels) == len(mine.labels)):
                    chosen[number] = other
                    left.remove(other)
                    break
    for number, mine in wanted:
        if number not in chosen:
            check.fail("this choice has no counterpart of as many parts on the key side", mine.at)
    if left:
        check.fail("this choice has no counterpart of as many parts on the leaf side", left[0].at)
    return [chosen[number] for number, _ in wanted]


def _choices(side: Side) -> list[Choice | Parts]:
    """The choices of a side: those of its name, then those of its axes."""
    return [piece for piece in side.name.pieces() if isinstance(piece, Choice)] + list(_parts(side))


def _parts(side: Side) -> Iterable[Parts]:
    return (factor for factor in side.factors() if isinstance(factor, Parts))


def _wilds(side: Side, *, deep: bool) -> list[Wild]:
    return [piece for piece in side.name.pieces() if isinstance(piece, Wild) and piece.deep is deep]


def all_indices(side: Side) -> Iterable[Index]:
    """The index variables of a name and of its axes."""
    yield from side.name.indices()
    yield from (factor for factor in side.factors() if isinstance(factor, Index))

