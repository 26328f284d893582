"""Whether a mapping is whole: every element of every leaf is written once, and of every key read once."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import product
from math import prod
from typing import NamedTuple

import numpy as np

from bridge._text import plural, quote, template
from bridge.mapping.arrays import ArrayTable
from bridge.mapping.block import Block
from bridge.mapping.cover import MOST_CELLS, Boxes, Cover, Steps, TooManyCellsError, cover, key_steps, spans
from bridge.mapping.desugar import Dropped
from bridge.mapping.equation import Leaves
from bridge.mapping.indexmap import Shape
from bridge.mapping.lower import key_box
from bridge.mapping.pattern import NamePatterns
from bridge.mapping.problem import Conflict, Missing, Problems, Unexpected
from bridge.mapping.solve import ShapeConflict
from bridge.mapping.template import Template
from bridge.planning.partly import Box, FilledBoxes, held_parts, may_stay_empty

_MANY = 1000  # more places than that are reported as one
_TOO_MANY = f"is {{}} in more than {MOST_CELLS:,} different parts, too many to be checked: write rules of fewer axes"


Partly = dict[str, tuple[Box, ...]]
"""Leaves that keys fill in part, and what they leave empty."""


def check_leaves(
    numbers: Sequence[int],
    blocks: Sequence[Block],
    leaves: Leaves,
    model: Template,
    allow_missing: NamePatterns,
    problems: Problems,
    known_holes: Collection[str] = (),
) -> tuple[tuple[str, ...], Partly]:
    """Report holes and overlaps of some leaves; returns those that may be missing and that no key fills, or only in
    part.

    Places in `known_holes` (`w[3]`) are known to be empty.
    """
    filled = np.zeros(len(leaves.table.names), bool)
    for block in blocks:
        filled[block.leaves.numbers] = True
    reported = _Reported.of(problems, known_holes)
    siblings: _Siblings | None = None
    kept: list[str] = []
    suspects: list[int] = []
    for number in numbers:
        name = leaves.name(number)
        if filled[number]:
            suspects.append(number)
        elif name in model.fills:
            continue
        elif name in allow_missing:
            kept.append(name)
        elif name not in reported.leaves:
            siblings = siblings or _Siblings(blocks, model)
            problems.missing.append(Missing(name, siblings.key(name)))
    partly: Partly = {}
    for number, parts, found in _covers(suspects, blocks, leaves, problems):
        name = leaves.name(number)
        may = may_stay_empty(parts, found.holes)
        if name in allow_missing and any(may):
            partly[name] = tuple([hole for hole, empty in zip(found.holes, may, strict=True) if empty])
            found = found._replace(holes=tuple([h for h, empty in zip(found.holes, may, strict=True) if not empty]))
            may = [False] * len(found.holes)
        _check_leaf(name, leaves.shape(number) or (), parts, found, may, problems, reported)
    return tuple(kept), partly


class _Reported(NamedTuple):
    """What problems speak of already: leaves, and their labels; leaves that are reported whole, or as filled twice."""

    leaves: frozenset[str]
    labels: frozenset[str]
    whole: frozenset[str]
    twice: frozenset[str]

    @classmethod
    def of(cls, problems: Problems, known_holes: Collection[str]) -> _Reported:
        """The subjects of all problems so far."""
        told = (*problems.mismatched, *problems.missing)
        leaves = frozenset(problem.name for problem in told)
        labels = frozenset(problem.leaf for problem in told).union(known_holes)
        whole = frozenset(problem.name for problem in told if not problem.place).union(known_holes)
        return cls(leaves, labels, whole, frozenset(conflict.subject for conflict in problems.conflicts))


class _Siblings:
    """Leaves whose names differ only in indices, to tell which key a missing one would have."""

    def __init__(self, blocks: Iterable[Block], model: Template) -> None:
        from bridge.mapping.fit import IndexFit  # for reports, as below

        groups: dict[str, dict[Shape, str]] = {}
        for block in blocks:
            for leaf, key in zip(block.leaves, block.terms[0].keys, strict=True):
                text, indices = template(leaf)
                if indices:
                    groups.setdefault(text, {}).setdefault(indices, key)
        self.fits = {text: IndexFit(samples) for text, samples in groups.items()}
        self.keys = model.keys()

    def key(self, name: str) -> str:
        """The key that would fill the leaf `name`: as its siblings tell, as its layout says, or its own name."""
        text, indices = template(name)
        fit = self.fits.get(text)
        return (fit and fit.key(indices)) or self.keys.get(name, name)


def _covers(
    suspects: Sequence[int], blocks: Sequence[Block], leaves: Leaves, problems: Problems
) -> Iterator[tuple[int, Sequence[FilledBoxes], Cover]]:
    """How often keys fill the elements of leaves that are not filled whole at first sight."""
    if not suspects:
        return
    held = held_parts(suspects, blocks, len(leaves.table.names))
    # Layers are alike: what their boxes come to is found once.
    covers: dict[object, Cover] = {}
    for number, parts in held.items():
        name, shape = leaves.name(number), leaves.shape(number)
        assert shape is not None
        alike = (shape, tuple((part.boxes.steps, part.boxes.starts.tobytes()) for part in parts))
        try:
            if alike not in covers:
                covers[alike] = cover(shape, [part.boxes for part in parts])
        except TooManyCellsError:
            conflict = Conflict(name, _TOO_MANY.format("filled"), tuple(key for part in parts for key in part.keys[:1]))
            problems.conflicts.append(conflict)
            continue
        yield number, parts, covers[alike]


def _check_leaf(
    name: str,
    shape: Shape,
    parts: Sequence[FilledBoxes],
    found: Cover,
    may: Sequence[bool],
    problems: Problems,
    reported: _Reported,
) -> None:
    """Report the holes and overlaps of one leaf; `may` says of each hole whether it may stay empty."""
    if name not in reported.whole:
        _holes(name, shape, parts, found, may, problems, reported)
    if name not in reported.twice:
        for first in found.overlaps[:1]:
            point = tuple(r.start for r in first)
            keys = tuple(dict.fromkeys(part.keys[n] for part in parts for n in part.boxes.holding(point)))
            text = "filled " + ("twice by " if len(keys) == 1 else "by ") + " and by ".join(map(quote, keys))
            more = len(found.overlaps) - 1
            text += f", and so are {plural(more, 'more place')} of it" if more else ""
            problems.conflicts.append(Conflict(name + spans(shape, first), text, keys))


def _holes(
    name: str,
    shape: Shape,
    parts: Sequence[FilledBoxes],
    found: Cover,
    may: Sequence[bool],
    problems: Problems,
    reported: _Reported,
) -> None:
    """Report what nothing fills, key by key where the keys around it tell which those would be."""
    if not found.holes:
        return
    from bridge.mapping.fit import IndexFit

    samples = {
        tuple(start): key for part in parts for start, key in zip(part.boxes.starts.tolist(), part.keys, strict=True)
    }
    fit, there = IndexFit(samples), set(samples.values())
    for hole, optional in zip(found.holes, may, strict=True):
        many = prod(len(r) for axis, r in enumerate(hole) if axis in fit.axes) > _MANY
        apart = [[range(n, n + 1) for n in r] if axis in fit.axes and not many else [r] for axis, r in enumerate(hole)]
        for part in product(*apart):
            place = spans(shape, part)
            if name + place not in reported.labels:
                key = fit.keys(part)
                problems.missing.append(Missing(name, None if key in there else key, place, optional))


def check_keys(
    suspects: Sequence[int],
    blocks: Sequence[Block],
    drops: Sequence[Dropped],
    table: ArrayTable,
    problems: Problems,
    *,
    told: Collection[str] = (),
) -> None:
    """Report keys of which some elements are read by no rule, or read twice; keys in `told` are reported already."""
    known = {*told, *(key for problem in problems.conflicts for key in problem.keys)}
    known |= {problem.key for problem in problems.mismatched}
    names = table.names
    order = sorted((n for n in suspects if names[n] not in known), key=names.__getitem__)
    once: dict[int, list[Boxes]] = {n: [] for n in order}
    copied: dict[int, list[Boxes]] = {n: [] for n in order}
    for block in blocks:
        for term in block.terms:
            steps, into = key_steps(term.index_map), copied if block.copy else once
            for row, number in enumerate(term.keys.numbers.tolist()):
                if number in into:
                    into[number].append(Boxes(steps, term.starts[row : row + 1]))
    for drop in drops:
        numbers: list[int] = drop.ids.tolist()
        for number in numbers:
            if number not in once:
                continue
            try:
                once[number].append(key_box(drop.bound.rule, table.spec(number).shape))
            except ShapeConflict as conflict:
                key, subject = names[number], f"rule '{drop.bound.rule}'"
                problems.conflicts.append(Conflict(subject, f"does not fit {quote(key)}: {conflict}", (key,)))
                del once[number]
    covers: dict[object, tuple[Cover, Cover]] = {}
    for number, boxes in once.items():
        shape, others = table.spec(number).shape, copied[number]
        alike = (shape, _signed(boxes), _signed(others))
        try:
            if alike not in covers:
                all_ = cover(shape, [*boxes, *others])
                covers[alike] = all_, cover(shape, boxes) if others else all_
        except TooManyCellsError:
            problems.conflicts.append(Conflict(names[number], _TOO_MANY.format("read"), (names[number],)))
            continue
        _check_key(names[number], shape, *covers[alike], problems)


def _signed(boxes: Iterable[Boxes]) -> tuple[tuple[tuple[Steps, ...], bytes], ...]:
    return tuple((each.steps, each.starts.tobytes()) for each in boxes)


def _check_key(key: str, shape: Shape, read: Cover, taken: Cover, problems: Problems) -> None:
    """Report what is wrong with the elements of one key; `taken` leaves out what copies read."""
    for first in read.holes[:1]:
        shown = ", ".join(spans(shape, hole) or "all" for hole in read.holes[:3])
        shown += ", …" if len(read.holes) > 3 else ""
        problems.unexpected.append(Unexpected(key, f"no rule reads its elements {shown}", _selected(shape, first)))
    if taken.overlaps:
        text = "some of its elements are read twice: a rule that reads them again says 'copy=true'"
        problems.conflicts.append(Conflict(key, text, (key,)))


def _selected(shape: Shape, ranges: Sequence[range]) -> str:
    """Axes that select just these ranges, as a rule has them: `[a[8:10] b]`."""
    names = (f"a{n}" if len(shape) > 26 else chr(ord("a") + n) for n in range(len(shape)))
    shown = [
        name if len(r) == n else f"{name}[{r.start}]" if len(r) == 1 else f"{name}[{r.start}:{r.stop}]"
        for name, r, n in zip(names, ranges, shape, strict=True)
    ]
    return f"[{' '.join(shown)}]"
