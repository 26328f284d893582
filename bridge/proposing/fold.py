"""Folds names into atoms: where children of one node that are numbered are mostly alike, their number is an index.

Elsewhere a number is a name: the layers of a Sequential, stages of different widths, `conv1` and `conv2`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from bridge.mapping.arrays import ArrayTable, Numbers
from bridge.mapping.names import NameIndex
from bridge.mapping.pattern import MARK, Column, Matrix
from bridge.proposing.atom import Atom, Info, gridded, number_of

_STEM = re.compile(r"(.*\D)(0|[1-9]\d{0,5})")
_MOST = 512  # children that become names of their own
_ENTRIES = 3  # names below `layers_0`, so that its number may be an index


class _NumberedNames:
    """Names that differ only in numbers, from `segments` on; `kinds` says what array each is."""

    __slots__ = ("ids", "kinds", "numbers", "segments")

    def __init__(self, segments: tuple[str, ...], numbers: Matrix, ids: Numbers, kinds: Numbers) -> None:
        self.segments, self.numbers, self.ids, self.kinds = segments, numbers, ids, kinds

    def at(self, rows: Column, place: int, text: str, column: int) -> _NumberedNames:
        """Some of them, whose number in a column is the text of a segment."""
        segments = (*self.segments[:place], text, *self.segments[place + 1 :])
        return _NumberedNames(segments, np.delete(self.numbers[rows], column, axis=1), self.ids[rows], self.kinds[rows])

    def marked(self, place: int, stem: str, number: int, column: int) -> _NumberedNames:
        """The same, with the number at the end of a segment as a column."""
        segments = (*self.segments[:place], stem + MARK, *self.segments[place + 1 :])
        return _NumberedNames(segments, np.insert(self.numbers, column, number, axis=1), self.ids, self.kinds)


def folded(table: ArrayTable, infos: Sequence[Info], ids: Numbers | None = None) -> list[Atom]:
    """All arrays of a table (or those in `ids`) as atoms; `infos` says what each is."""
    numbers_: list[int] = list(range(len(table))) if ids is None else ids.tolist()
    names = table.names if ids is None else [table.names[n] for n in numbers_]
    known: dict[Info, int] = {}
    # Many arrays share one info object, and hashing one takes time.
    numbers: dict[int, int] = {}
    kinds = np.empty(len(names), np.intp)
    for row, n in enumerate(numbers_):
        info = infos[n]
        number = numbers.get(id(info))
        if number is None:
            number = numbers[id(info)] = known.setdefault(info, len(known))
        kinds[row] = number
    members = [
        _NumberedNames(tuple(family.text.split(".")), family.numbers, family.ids, kinds[family.ids])
        for family in NameIndex(names).families.values()
    ]
    found: list[Atom] = []
    by_kind = list(known)
    for one in _visit(members, 0, 0):
        found_kinds: list[int] = np.unique(one.kinds).tolist()
        for kind in found_kinds:
            mask = one.kinds == kind
            rows = one.ids[mask]
            atom = Atom(one.segments, one.numbers[mask], rows if ids is None else ids[rows], by_kind[kind])
            found += gridded(atom)
    return sorted(found, key=lambda atom: int(atom.ids.min()))


def key_infos(table: ArrayTable) -> list[Info]:
    """What is known of keys: keys with one spec share one object."""
    known = [Info(spec.shape, number=number_of(spec.dtype)) for spec in table.specs]
    kinds: list[int] = table.kinds.tolist()
    return [known[kind] for kind in kinds]


def _visit(members: Sequence[_NumberedNames], place: int, column: int) -> Iterator[_NumberedNames]:
    """The names below one node, whose first `place` segments, with `column` numbers, are settled."""
    groups: dict[str, list[_NumberedNames]] = {}
    for one in members:
        if len(one.segments) == place:
            yield one
        else:
            groups.setdefault(one.segments[place], []).append(one)
    for text, group in _stems(groups, place, column).items():
        if text != MARK:
            yield from _visit(group, place + 1, column + (MARK in text))
            continue
        values = np.unique(np.concatenate([one.numbers[:, column] for one in group]))
        if _alike([(one, one.numbers[:, column]) for one in group], values, place) or len(values) > _MOST:
            yield from _visit(group, place + 1, column + 1)
            continue
        for value in values.tolist():
            parts = [(one, np.flatnonzero(one.numbers[:, column] == value)) for one in group]
            named = [one.at(rows, place, str(value), column) for one, rows in parts if len(rows)]
            yield from _visit(named, place + 1, column)


def _stems(groups: dict[str, list[_NumberedNames]], place: int, column: int) -> dict[str, list[_NumberedNames]]:
    """The children of a node, with `layers_0`, `layers_1` as one where they are alike."""
    stems: dict[str, dict[int, str]] = {}
    for text in groups:
        found = _STEM.fullmatch(text) if text != MARK else None
        if found:
            stems.setdefault(found[1], {})[int(found[2])] = text
    for stem, texts in stems.items():
        if len(texts) < 2 or min(len(groups[text]) for text in texts.values()) < _ENTRIES:
            continue
        pairs = [(one, np.full(len(one.ids), number)) for number, text in texts.items() for one in groups[text]]
        if _alike(pairs, np.array(sorted(texts)), place):
            joined: dict[tuple[str, ...], list[_NumberedNames]] = {}
            for number, text in texts.items():
                for one in groups.pop(text):
                    new = one.marked(place, stem, number, column)
                    joined.setdefault(new.segments, []).append(new)
            groups[stem + MARK] = [_joined(parts) for parts in joined.values()]
    return groups


def _joined(parts: Sequence[_NumberedNames]) -> _NumberedNames:
    arrays = [(one.numbers, one.ids, one.kinds) for one in parts]
    numbers, ids, kinds = (np.concatenate(each) for each in zip(*arrays, strict=True))
    return _NumberedNames(parts[0].segments, numbers, ids, kinds)


def _alike(members: Sequence[tuple[_NumberedNames, Column]], values: Column, place: int) -> bool:
    """Whether numbered children are mostly alike: more than half of the names and shapes below most of them are those
    that most of them have. `members` come with the number of the child that each name is below.
    """
    if len(values) < 2 or int(values[-1] - values[0]) + 1 != len(values):
        return False
    holders: Counter[tuple[tuple[str, ...], int]] = Counter()
    children: dict[int, list[tuple[tuple[str, ...], int]]] = {value: [] for value in values.tolist()}
    for one, column in members:
        tail = one.segments[place + 1 :]
        for value, kind in np.unique(np.stack([column, one.kinds]), axis=1).T.tolist():
            holders[tail, kind] += 1
            children[value].append((tail, kind))
    half = len(values) / 2
    alike = [sum(holders[each] > half for each in own) > len(own) / 2 for own in children.values()]
    return sum(alike) > half
