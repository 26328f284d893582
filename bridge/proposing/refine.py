"""Cuts the atoms of both sides until their counts meet: layers that are kept apart, numbers that are names.

A node is a numbered place in the names. Where the other side has no list or stack of as many, its numbers are cut into
classes: those that have the same names and shapes below them, or each by itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from bridge.proposing.atom import Atom
from bridge.proposing.schedule import scheduled, schedules

_MOST = 64  # numbers that become names


def refined(keys: list[Atom], leaves: list[Atom]) -> tuple[list[Atom], list[Atom]]:
    """Both sides, cut where that lets more of them meet."""
    for _ in range(2):
        keys = _refined(keys, leaves, turns=True)
        leaves = _refined(leaves, keys)
    return keys, leaves


def _refined(own: list[Atom], others: list[Atom], *, turns: bool = False) -> list[Atom]:
    nodes = dict.fromkeys(node for atom in sorted(own, key=lambda a: len(a.segments)) for node in atom.nodes)
    for node in nodes:
        inside = [atom for atom in own if node in atom.nodes]
        if not inside:
            continue
        other = _OtherSide(others)
        best, gain = inside, other.met(inside)
        if gain == 1:
            continue
        ways = [
            [part for atom in inside for part in atom.cut(atom.nodes.index(node), classes)]
            for classes in _classes(inside, node)
        ]
        ways += _by_turns(inside, node, others) if turns else ()
        for cut in ways:
            met = other.met(cut)
            if met > gain:
                best, gain = cut, met
        if best is not inside:
            chosen = set(map(id, inside))
            own = [atom for atom in own if id(atom) not in chosen] + best
    return own


def _by_turns(atoms: Sequence[Atom], node: str, others: Sequence[Atom]) -> Iterator[list[Atom]]:
    """The ways to cut layers that take turns: all are there, and the other side has as many in parts."""
    if any(atom.turn is not None for atom in atoms):
        return
    values = np.unique(np.concatenate([atom.columns[atom.nodes.index(node)] for atom in atoms]))
    if values[0] == 0 and values[-1] == len(values) - 1:
        for parts in schedules(len(values), others):
            yield [part for atom in atoms for part in scheduled(atom, atom.nodes.index(node), parts)]


class _OtherSide:
    """The atoms of the other side, to see how many of some could be among them."""

    def __init__(self, atoms: Iterable[Atom]) -> None:
        self.held: dict[int, list[Counter[int]]] = {}
        for atom in atoms:
            self.held.setdefault(atom.elements, []).append(Counter((*atom.extents, *atom.shape)))

    def met(self, atoms: Sequence[Atom]) -> float:
        """The share of their arrays that atoms could find a partner for; each partner counts once."""
        total = sum(len(atom.ids) for atom in atoms)
        found = 0
        groups: dict[int, list[Atom]] = {}
        for atom in atoms:
            groups.setdefault(atom.elements, []).append(atom)
        for elements, group in groups.items():
            free = list(self.held.get(elements, ()))
            for atom in sorted(group, key=lambda a: -len(a.ids)):
                place = next((n for n, held in enumerate(free) if _within(atom, held)), None)
                if place is not None:
                    free.pop(place)
                    found += len(atom.ids)
        return found / total


def _within(atom: Atom, held: Counter[int]) -> bool:
    """Whether each number of an atom could be a number or an axis of the other side."""
    wanted = Counter(atom.extents)
    return all(held[extent] >= count for extent, count in wanted.items())


def _classes(atoms: Sequence[Atom], node: str) -> list[list[list[int]]]:
    """Ways to cut the numbers of a node: by what is below them, then each by itself."""
    below: dict[int, list[int]] = {}
    for number, atom in enumerate(atoms):
        for value in atom.columns[atom.nodes.index(node)].tolist():
            below.setdefault(value, []).append(number)
    alike: dict[tuple[int, ...], list[int]] = {}
    for value in sorted(below):
        alike.setdefault(tuple(below[value]), []).append(value)
    ways = [list(alike.values())] if len(alike) > 1 else []
    runs = [run for values in alike.values() for run in _runs(values)]
    if len(runs) > len(alike):
        ways.append(runs)
    if len(below) <= _MOST:
        ways.append([[value] for value in sorted(below)])
    return ways


def _runs(values: Sequence[int]) -> list[list[int]]:
    array = np.array(values)
    return [each.tolist() for each in np.split(array, np.flatnonzero(np.diff(array) != 1) + 1)]
