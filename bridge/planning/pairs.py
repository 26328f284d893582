"""Missing leaves and unused keys, paired: who is surely whose, and who may be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from itertools import product
from math import prod
from typing import NamedTuple

from bridge.mapping.indexmap import Shape
from bridge.planning.likeness import Likeness, contradict, same

_EDGES = 5_000  # pairs of names that are compared; with more, only those that say the same are paired
_CLOSE = 0.8  # how alike a misspelt name is
_MARGIN = 0.05
_ALIKE = 0.55


class AlikeNames(NamedTuple):
    """Keys, or leaves, whose names differ only in indices, of one shape.

    `places` are those of one stacked leaf that are missing, and `called` is what their keys would be called.
    """

    text: str
    names: dict[Shape, str]
    shape: Shape
    likeness: Likeness
    places: tuple[Shape, ...] = ()
    called: str = ""


class KeyFit(NamedTuple):
    """How a key fits a leaf: the axes of a stack in front, and what else its shape needs."""

    depth: int
    how: str  # "same", "units", "transposed", "rows"


class SurePair(NamedTuple):
    """A leaf and a key that are surely each other's."""

    leaf: AlikeNames
    key: AlikeNames
    fit: KeyFit


class Open(NamedTuple):
    """Leaves and keys between which it is open who is whose; one of each where there is only one candidate."""

    leaves: tuple[AlikeNames, ...]
    keys: tuple[AlikeNames, ...]


def fit(leaf: AlikeNames, key: AlikeNames) -> KeyFit | None:
    """How `key` fits `leaf`, or `None`: a key for each leaf, or one for each index of each stacked leaf."""
    if leaf.places:
        depth = len(leaf.places[0])
        return KeyFit(depth, "same") if key.shape == leaf.shape[depth:] and set(key.names) == {*leaf.places} else None
    for depth in range(len(leaf.shape) + 1):
        lead = leaf.shape[:depth]
        how = _how(key.shape, leaf.shape[depth:])
        if how is None or len(key.names) != len(leaf.names) * prod(lead):
            continue
        stacks = [*product(*map(range, lead))]
        if set(key.names) == {own + stack for own in leaf.names for stack in stacks}:
            return KeyFit(depth, how)
    return None


def _how(key: Shape, leaf: Shape) -> str | None:
    if key == leaf:
        return "same"
    if _bare(key) == _bare(leaf):
        return "units"
    if len(key) == len(leaf) == 2 and key == leaf[::-1]:
        return "transposed"
    if len(key) == len(leaf) >= 2 and key[0] > leaf[0] and key[1:] == leaf[1:]:
        return "rows"
    return None


def _bare(shape: Shape) -> list[int]:
    return [n for n in shape if n != 1]


def pairs(leaves: Sequence[AlikeNames], keys: Sequence[AlikeNames]) -> tuple[list[SurePair], list[Open]]:
    """One assignment: names that say the same first, then what is left between the others."""
    sure = [*_alike(leaves, keys)]
    free = _without(leaves, (pair.leaf for pair in sure)), _without(keys, (pair.key for pair in sure))
    if len(free[0]) * len(free[1]) > _EDGES:
        return sure, []
    fits = {(l.text, k.text): found for l in free[0] for k in free[1] if (found := fit(l, k)) is not None}
    more = [*_only(free[0], free[1], fits)]
    free = _without(free[0], (pair.leaf for pair in more)), _without(free[1], (pair.key for pair in more))
    return [*sure, *more], [*_open(free[0], free[1], fits)]


def _without(units: Iterable[AlikeNames], gone: Iterable[AlikeNames]) -> list[AlikeNames]:
    taken = {unit.text for unit in gone}
    return [unit for unit in units if unit.text not in taken]


def _alike(leaves: Sequence[AlikeNames], keys: Sequence[AlikeNames]) -> Iterator[SurePair]:
    """Pairs whose names say the same, where no other name does."""
    said: dict[Likeness, tuple[list[AlikeNames], list[AlikeNames]]] = {}
    for side, units in enumerate((leaves, keys)):
        for unit in units:
            if unit.likeness.words or unit.likeness.attribute:
                said.setdefault(unit.likeness, ([], []))[side].append(unit)
    for own, others in said.values():
        if len(own) * len(others) > _EDGES:
            continue
        found = [(l, k, how) for l in own if not l.places for k in others if (how := fit(l, k)) is not None]
        yield from (SurePair(l, k, how) for l, k, how in _mutual(found) if l.likeness.words)


def _only(
    leaves: Sequence[AlikeNames], keys: Sequence[AlikeNames], fits: Mapping[tuple[str, str], KeyFit]
) -> Iterator[SurePair]:
    """Pairs of which one name says a little more, each the other's only one."""
    fitting = [(l, k, fits[l.text, k.text]) for l in leaves for k in keys if (l.text, k.text) in fits and not l.places]
    for l, k, how in _mutual([each for each in fitting if same(each[0].likeness, each[1].likeness)]):
        yield SurePair(l, k, how)


def _mutual(found: Sequence[tuple[AlikeNames, AlikeNames, KeyFit]]) -> list[tuple[AlikeNames, AlikeNames, KeyFit]]:
    """Those of which neither side has another."""
    leaves, keys = Counter(l.text for l, _, _ in found), Counter(k.text for _, k, _ in found)
    return [(l, k, how) for l, k, how in found if leaves[l.text] == keys[k.text] == 1]


def _open(
    leaves: Sequence[AlikeNames], keys: Sequence[AlikeNames], fits: Mapping[tuple[str, str], KeyFit]
) -> Iterator[Open]:
    """What may be whose: by a misspelt name the one, else all that are connected by what fits."""
    edges: list[tuple[float, AlikeNames, AlikeNames]] = []
    ratios: dict[tuple[str, str], list[float]] = {}
    for l in leaves:
        for k in keys:
            found = fits.get((l.text, k.text))
            if found is None or found.how not in ("same", "units"):
                continue
            ratio = SequenceMatcher(None, l.called or l.text, k.text).ratio()
            if _may(l.likeness, k.likeness, ratio):
                edges.append((ratio, l, k))
                ratios.setdefault(("leaf", l.text), []).append(ratio)
                ratios.setdefault(("key", k.text), []).append(ratio)
    best = {unit: sorted(found)[-2:] for unit, found in ratios.items()}
    taken: set[tuple[str, str]] = set()
    for ratio, l, k in edges:
        sides = ("leaf", l.text), ("key", k.text)
        clear = all(
            best[side][-1] == ratio and ratio > best[side][0] + _MARGIN for side in sides if len(best[side]) > 1
        )
        if ratio >= _CLOSE and clear:
            taken.update(sides)
            yield Open((l,), (k,))
    left = [(l, k) for _, l, k in edges if ("leaf", l.text) not in taken and ("key", k.text) not in taken]
    yield from _connected([(l, k) for l, k in left if not l.places])


def _may(leaf: Likeness, key: Likeness, ratio: float) -> bool:
    """Whether a name may mean the other: the same parameter of something, or words that are alike."""
    if contradict(leaf.words, key.words):
        return False
    if leaf.attribute == key.attribute != "":
        return True
    return "" in (leaf.attribute, key.attribute) and (ratio >= _ALIKE or not leaf.words.isdisjoint(key.words))


def _connected(edges: Sequence[tuple[AlikeNames, AlikeNames]]) -> Iterator[Open]:
    """Leaves and keys that hang together."""
    groups: list[tuple[dict[str, AlikeNames], dict[str, AlikeNames]]] = []
    for leaf, key in edges:
        mine = [group for group in groups if leaf.text in group[0] or key.text in group[1]]
        joined: tuple[dict[str, AlikeNames], dict[str, AlikeNames]] = ({}, {})
        for group in (*mine, ({leaf.text: leaf}, {key.text: key})):
            joined[0].update(group[0])
            joined[1].update(group[1])
        groups = [group for group in groups if group not in mine]
        groups.append(joined)
    for leaves, keys in groups:
        yield Open(tuple(leaves.values()), tuple(keys.values()))
