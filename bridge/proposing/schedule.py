"""Layers that take turns: numbered in the keys, and in the model a stack for each kind, in groups that repeat.

A model has `local` [4 5 …], `full` [4 …] and `tail` [2 …] for 26 layers: four groups of six, and two. The counts tell
the schedule. Which kind is first in a group no header tells, and so it is a guess unless the names say it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from bridge.mapping.arrays import Shape
from bridge.mapping.pattern import MARK, Mask
from bridge.proposing.atom import Atom, Turn
from bridge.proposing.meanings import snake

_FIRST = frozenset(["first", "start", "early", "initial", "lead", "leading", "bottom", "before", "prefix"])
_LAST = frozenset(
    ["last", "tail", "rest", "remainder", "remaining", "end", "late", "trailing", "top", "after", "suffix"]
)
_ALIKE = 0.5  # of what two parts hold, that both must have
_MOST = 6  # parts


class LayerPart(NamedTuple):
    """Layers by number, and how they repeat: every `period`, or not at all where it is 0. `why` they are a guess."""

    numbers: tuple[int, ...]
    period: int
    why: str


def scheduled(atom: Atom, place: int, parts: Sequence[LayerPart]) -> Iterator[Atom]:
    """Keys by parts; those of groups have two numbers for one, or the number of the group alone."""
    rest, count = np.ones(len(atom.ids), bool), sum(len(part.numbers) for part in parts)
    for part in parts:
        mask = rest & np.isin(atom.numbers[:, place], part.numbers)
        if mask.any():
            rest &= ~mask
            yield _grouped(atom, place, mask, part, count) if part.period else atom.at(mask, part.why)
    if rest.any():
        yield atom.at(rest)


def _grouped(atom: Atom, place: int, mask: Mask, part: LayerPart, count: int) -> Atom:
    numbers = atom.numbers[mask]
    group, turn = np.divmod(numbers[:, place], part.period)
    turns, groups = np.unique(turn), np.unique(group)
    others = len({row.tobytes() for row in np.delete(numbers, place, axis=1)})
    if len(turns) * len(groups) * others != len(numbers):
        return atom.at(mask, part.why)
    at = [n for n, segment in enumerate(atom.segments) if MARK in segment][place]
    columns = [group, turn] if len(turns) > 1 else [group]
    segments = (*atom.segments[:at], *[MARK] * len(columns), *atom.segments[at + 1 :])
    numbers = np.column_stack([numbers[:, :place], *columns, numbers[:, place + 1 :]])
    made = Turn(at, part.period, tuple(turns.tolist()), -(-count // part.period))
    return Atom(segments, numbers, atom.ids[mask], atom.info, made, part.why)


def schedules(count: int, leaves: Sequence[Atom]) -> Iterator[list[LayerPart]]:
    """The ways in which parts of the model make `count` layers."""
    for leads in _beside(leaves):
        for groups in sorted({lead[0] for lead in leads.values() if lead}):
            fixed = [name for name, lead in leads.items() if len(lead) == 2 and lead[0] == groups]
            free = [name for name, lead in leads.items() if lead == (groups,)]
            if any(len(lead) > 2 or (len(lead) == 2 and name not in fixed) for name, lead in leads.items()):
                continue
            for size in range(len(free), -1, -1):
                for chosen in combinations(free, size):
                    found = _schedule(count, groups, leads, [*fixed, *chosen])
                    if found:
                        yield found


def _schedule(count: int, groups: int, leads: Mapping[str, Shape], turning: Sequence[str]) -> list[LayerPart]:
    """The layers of each part; none where they are not as many as there are."""
    each = {name: leads[name][1] if len(leads[name]) == 2 else 1 for name in turning}
    once = {name: leads[name][0] if leads[name] else 1 for name in leads if name not in each}
    period = sum(each.values())
    if period < 2 or groups * period + sum(once.values()) != count:
        return []
    order = sorted(each, key=lambda name: (_rank(name), -each[name]))
    why = "" if len(order) < 2 or _told(order) else f"headers do not tell whose turn in each {period} layers is first"
    found: list[LayerPart] = []
    at = 0
    for name in sorted(once, key=_rank):
        if _rank(name) < 0:
            found.append(LayerPart(tuple(range(at, at + once[name])), 0, ""))
            at += once[name]
    start = at
    for name in order:
        numbers = [at + period * group + n for group in range(groups) for n in range(each[name])]
        found.append(LayerPart(tuple(numbers), period, why))
        at += each[name]
    at = start + groups * period
    behind = [name for name in once if _rank(name) >= 0]
    for name in sorted(behind, key=_rank):
        told = len(behind) == 1 and _rank(name) > 0
        unknown = "" if told else "headers do not tell where in the model these layers stand"
        found.append(LayerPart(tuple(range(at, at + once[name])), 0, unknown))
        at += once[name]
    return found


def _rank(name: str) -> int:
    """-1 for what a name puts first, 1 for what it puts last."""
    words = set(snake(name).split("_"))
    return -1 if words & _FIRST else 1 if words & _LAST else 0


def _told(order: Sequence[str]) -> bool:
    """Whether the names say the order."""
    ranks = [_rank(name) for name in order]
    return len(set(ranks)) == len(ranks)


def _beside(leaves: Sequence[Atom]) -> Iterator[dict[str, Shape]]:
    """Parts of the model that stand beside each other and hold the same, with the extents of their stacks."""
    homes: dict[tuple[str, ...], dict[str, dict[tuple[str, ...], Shape]]] = {}
    for leaf in leaves:
        for n in range(len(leaf.segments) - 1):
            if MARK in leaf.segments[n]:
                break
            tail = leaf.segments[n + 1 :]
            tail = tail[1:] if tail[0] == MARK else tail
            if tail:
                home = homes.setdefault(leaf.segments[:n], {})
                home.setdefault(leaf.segments[n], {})[tail] = (*leaf.extents, *leaf.shape)
    for home in homes.values():
        for one in home.values():
            alike = {name: other for name, other in home.items() if _alike(one, other)}
            if 2 <= len(alike) <= _MOST and one is next(iter(alike.values())):
                leads = _leads(alike)
                if leads:
                    yield leads


def _alike(one: Mapping[tuple[str, ...], Shape], other: Mapping[tuple[str, ...], Shape]) -> bool:
    common = len(one.keys() & other.keys())
    return common > 1 and common >= _ALIKE * max(len(one), len(other))


def _leads(parts: Mapping[str, Mapping[tuple[str, ...], Shape]]) -> dict[str, Shape]:
    """The extents in front of what parts have in common; none where two arrays of one part do not agree."""
    first = next(iter(parts.values()))
    found: dict[str, Shape] = dict.fromkeys(parts, ())
    for tail in [tail for tail in first if all(tail in part for part in parts.values())]:
        shapes = {name: part[tail] for name, part in parts.items()}
        shared = 0
        while len({shape[-shared - 1 :] for shape in shapes.values() if len(shape) > shared}) == 1:
            if any(len(shape) <= shared for shape in shapes.values()):
                break
            shared += 1
        for name, shape in shapes.items():
            lead = shape[: len(shape) - shared]
            shorter, longer = sorted((lead, found[name]), key=len)
            if longer[: len(shorter)] != shorter:
                return {}
            found[name] = longer
    return found
