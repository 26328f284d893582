"""Projections that one side has as one array and the other as several: q, k and v; k and v; gate and up.

The several become one atom, where the other side has the name of the one and nothing like the several. Nothing in a
header tells in which order a fused array holds its parts, so such pairs are guesses; but where a layout of `eqx.nn`
takes the fused name itself, it knows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from bridge.mapping.arrays import Shape
from bridge.proposing.atom import Atom, Info
from bridge.proposing.concepts import Said, said_by
from bridge.proposing.fits import fits

PARTS = {"qkv": ("q", "k", "v"), "kv": ("k", "v"), "gate_up": ("gate", "up")}

_TABLES = ("emb", "pos", "type")  # nobody turns these


class Joined(Atom):
    """Several atoms as one: their arrays one after the other on `axis`, or stacked there where `stacked`.

    `place` is the segment in which their names differ.
    """

    joined = True

    def __init__(self, role: str, parts: Sequence[Atom], place: int, axis: int, *, stacked: bool) -> None:
        first = parts[0]
        shape = list(first.shape)
        if stacked:
            shape.insert(axis, len(parts))
        else:
            shape[axis] = sum(part.shape[axis] for part in parts)
        segments = (*first.segments[:place], role, *first.segments[place + 1 :])
        info = _info(parts, tuple(shape), axis)
        ids = np.concatenate([part.ids for part in parts])
        super().__init__(segments, first.numbers, ids, info, first.turn, first.why)
        self.parts, self.place, self.axis, self.stacked = parts, place, axis, stacked
        self.elements = sum(part.elements for part in parts)


def _info(parts: Sequence[Atom], shape: Shape, axis: int) -> Info:
    """What is known of parts together: the name by which a layout takes them, if one does."""
    first = parts[0].info
    if not first.fused or any(part.info.fused != first.fused for part in parts) or first.fused_depth != axis:
        return Info(shape)
    return Info(shape, (first.fused,), first.fused_own, shape[axis:], axis)


def with_joined(keys: list[Atom], leaves: list[Atom]) -> tuple[list[Atom], list[Atom]]:
    """Both sides, parts as one where the other side has them so."""
    said = said_by(keys), said_by(leaves)
    return _joined(keys, leaves, said[1]), _joined(leaves, keys, said[0])


def _joined(own: list[Atom], others: list[Atom], of_others: Sequence[Said]) -> list[Atom]:
    """One side, whose parts are joined where the other has the fused name, and not the parts."""
    for role, parts in PARTS.items():
        fused = [atom for atom, each in zip(others, of_others, strict=True) if each.role == role]
        if not fused:
            continue
        said = said_by(own)  # of what was joined before, too
        turned = _turned(own, said, others, of_others)
        there = {each.role: atom for atom, each in zip(own, said, strict=True)}
        if role in there and any(atom.elements == there[role].elements for atom in fused):
            continue
        separate = {(each.role, atom.elements) for atom, each in zip(others, of_others, strict=True)}
        for group, place in _groups(own, said, parts):
            if all((part, atom.elements) in separate for part, atom in zip(parts, group, strict=True)):
                continue
            made = _best(role, group, place, fused, turned=turned)
            if made is not None:
                own = [atom for atom in own if all(atom is not part for part in group)]
                own.append(made)
    return own


def _groups(own: Sequence[Atom], said: Sequence[Said], parts: Sequence[str]) -> Iterator[tuple[list[Atom], int]]:
    """Atoms that are the parts of one module: names that differ in one segment, and numbers that agree."""
    homes: dict[tuple[object, ...], dict[str, Atom]] = {}
    for atom, each in zip(own, said, strict=True):
        if each.role in parts:
            for place in range(max(0, len(atom.segments) - 3), len(atom.segments)):
                rest = (*atom.segments[:place], "", *atom.segments[place + 1 :])
                values = tuple(tuple(column.tolist()) for column in atom.columns)
                homes.setdefault((rest, place, values), {})[each.role] = atom
    for (_, place, _), found in homes.items():
        assert isinstance(place, int)
        if len(found) == len(parts):
            yield [found[part] for part in parts], place


def _turned(own: Sequence[Atom], said: Sequence[Said], others: Sequence[Atom], of_others: Sequence[Said]) -> bool:
    """Whether most matrices of which shapes tell it are the other way round on the other side."""
    votes = 0
    for atom, said_own in zip(own, said, strict=True):
        for other, theirs in zip(others, of_others, strict=True):
            if said_own.role == theirs.role not in ("", *_TABLES) and atom.elements == other.elements:
                ways = {fit.straight for fit in fits(atom, other) or fits(other, atom)}
                matrix = min(sum(n > 1 for n in each.shape) for each in (atom, other)) > 1
                votes += (ways == {False}) - (ways == {True} and matrix)
    return votes > 0


def _best(role: str, group: Sequence[Atom], place: int, fused: Sequence[Atom], *, turned: bool) -> Joined | None:
    """The way of joining parts that fits one of the fused arrays best, turned as other matrices are."""
    found: list[tuple[bool, float, int, Joined]] = []
    for made in _ways(role, group, place):
        for other in fused:
            if other.elements == made.elements:
                ways = fits(made, other) or fits(other, made)
                if ways:
                    best = min(ways, key=lambda fit: fit.cost)
                    found.append((turned and best.straight, best.cost, len(found), made))
    return min(found)[3] if found else None


def _ways(role: str, group: Sequence[Atom], place: int) -> Iterator[Joined]:
    """The axes on which parts can be joined; where it is known which axis is the output, only that."""
    shapes = [part.shape for part in group]
    rank = len(shapes[0])
    if any(len(shape) != rank for shape in shapes):
        return
    differ = [n for n in range(rank) if len({shape[n] for shape in shapes}) > 1]
    axes = differ or _outputs(group[0])
    for axis in axes if len(differ) < 2 else ():
        yield Joined(role, group, place, axis, stacked=False)
    if not differ:
        for axis in range(rank + 1):
            yield Joined(role, group, place, axis, stacked=True)


def _outputs(part: Atom) -> list[int]:
    """The axes that may be a projection's output."""
    rank, last = len(part.shape), part.segments[-1]
    if part.info.fused:
        return [part.info.fused_depth]
    if part.info.layer == "Linear":
        return [rank - 2] if last == "weight" else [rank - 1]
    if last == "weight" and rank == 2:
        return [0]
    if last == "kernel":
        return [rank - 1]
    return list(range(rank))
