"""Whether a mapping is whole: every element of every leaf is written once, and of every key read once."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import product
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from bridge._text import plural, quote, template
from bridge._values import NamedTuple
from bridge.mapping.arrays import ArrayTable, groups
from bridge.mapping.block import Block
from bridge.mapping.cover import Boxes, Cover, cover, key_steps, leaf_steps, spans
from bridge.mapping.indexmap import Shape
from bridge.mapping.lower import key_box
from bridge.mapping.pattern import Names as Patterns
from bridge.mapping.problem import Conflict, Missing, Problems, Unexpected
from bridge.mapping.sent import Sent
from bridge.mapping.solve import ShapeConflict
from bridge.mapping.template import Template

if TYPE_CHECKING:
    import numpy.typing as npt

_MANY = 100_000  # more places than that are reported as one


def check_leaves(
    blocks: Sequence[Block],
    leaves: Mapping[str, Shape],
    model: Template,
    allow_missing: Patterns,
    problems: Problems,
    hollow: Collection[str] = (),
) -> tuple[str, ...]:
    """Report holes and overlaps of leaves; returns those that no key fills and that may be missing.

    Places in `hollow` (`w[3]`) are known to be empty.
    """
    filling = [block for block in blocks if not block.tie]
    whole, in_part = _filled(filling)
    reported = _Reported.of(problems, hollow)
    siblings: _Siblings | None = None
    kept: list[str] = []
    for name, shape in leaves.items():
        if name in whole:
            continue
        if name in in_part:
            _check_leaf(name, shape, in_part[name], problems, reported)
        elif name in model.fills:
            continue
        elif name in allow_missing:
            kept.append(name)
        elif name not in reported.leaves:
            siblings = siblings or _Siblings(filling, model)
            problems.missing.append(Missing(name, siblings.key(name)))
    return tuple(kept)


def _filled(blocks: Sequence[Block]) -> tuple[set[str], dict[str, list[Block]]]:
    """Leaves that one row fills, whole: a map is one to one, so that counting its elements is enough. And the rows of
    all others.
    """
    if not blocks:
        return set(), {}
    table = blocks[0].leaves.table
    rows, maps = np.zeros(len(table), np.intp), np.zeros(len(table), np.intp)
    for block in blocks:
        np.add.at(rows, block.leaves.numbers, 1)
        one = block.terms[0].index_map
        if one.count == prod(one.leaf_shape):
            np.add.at(maps, block.leaves.numbers, 1)
    whole = (rows == 1) & (maps == 1)
    in_part: dict[str, list[Block]] = {}
    for block in blocks:
        rest = np.flatnonzero(~whole[block.leaves.numbers])
        for _, at in groups(block.leaves.numbers[rest]):
            part = block if len(at) == len(block) else block.at(rest[at])
            in_part.setdefault(part.leaves[0], []).append(part)
    return {table.names[n] for n in np.flatnonzero(whole).tolist()}, in_part


class _Reported(NamedTuple):
    """What problems speak of already: leaves, and their labels; leaves that are reported whole, or as filled twice."""

    leaves: frozenset[str]
    labels: frozenset[str]
    whole: frozenset[str]
    twice: frozenset[str]

    @classmethod
    def of(cls, problems: Problems, hollow: Collection[str]) -> _Reported:
        """The subjects of all problems so far."""
        told = (*problems.mismatched, *problems.missing)
        leaves, labels = (
            frozenset(problem.name for problem in told),
            frozenset(problem.leaf for problem in told).union(hollow),
        )
        whole = frozenset(problem.name for problem in told if not problem.place).union(hollow)
        return cls(leaves, labels, whole, frozenset(conflict.subject for conflict in problems.conflicts))


class _Siblings:
    """Leaves whose names differ only in indices, to tell which key a missing one would have."""

    def __init__(self, blocks: Sequence[Block], model: Template) -> None:
        from bridge.mapping.fit import Fit  # for reports, as below

        samples: dict[str, dict[Shape, str]] = {}
        for block in blocks:
            for leaf, key in zip(block.leaves, block.terms[0].keys, strict=True):
                text, indices = template(leaf)
                if indices:
                    samples.setdefault(text, {}).setdefault(indices, key)
        self.fits = {text: Fit(found) for text, found in samples.items()}
        self.keys = model.keys()

    def key(self, name: str) -> str:
        """The key that would fill the leaf `name`: as its siblings tell, as its layout says, or its own name."""
        text, indices = template(name)
        fit = self.fits.get(text)
        return (fit and fit.key(indices)) or self.keys.get(name, name)


def _check_leaf(name: str, shape: Shape, blocks: Sequence[Block], problems: Problems, reported: _Reported) -> None:
    """Report the holes and overlaps of one leaf."""
    groups = [Boxes(leaf_steps(block.terms[0].index_map), block.starts) for block in blocks]
    found = cover(shape, groups)
    if name not in reported.whole:
        _holes(name, shape, blocks, found, problems, reported)
    if name not in reported.twice:
        for first in found.overlaps[:1]:
            point = tuple(r.start for r in first)
            held = [b.terms[0].keys[n] for b, group in zip(blocks, groups, strict=True) for n in group.holding(point)]
            keys = tuple(dict.fromkeys(held))
            text = "filled " + ("twice by " if len(keys) == 1 else "by ") + " and by ".join(map(quote, keys))
            more = len(found.overlaps) - 1
            text += f", and so are {plural(more, 'more place')} of it" if more else ""
            problems.conflicts.append(Conflict(name + spans(shape, first), text, keys))


def _holes(
    name: str, shape: Shape, blocks: Sequence[Block], found: Cover, problems: Problems, reported: _Reported
) -> None:
    """Report what nothing fills, key by key where the keys around it tell which those would be."""
    if not found.holes:
        return
    from bridge.mapping.fit import Fit

    samples = {tuple(start): key for b in blocks for start, key in zip(b.starts.tolist(), b.terms[0].keys, strict=True)}
    fit, there = Fit(samples), set(samples.values())
    for hole in found.holes:
        apart = [[range(n, n + 1) for n in r] if axis in fit.axes else [r] for axis, r in enumerate(hole)]
        many = prod(map(len, apart)) > _MANY
        for part in [hole] if many else product(*apart):
            place = spans(shape, part)
            if name + place not in reported.labels:
                key = fit.key(tuple(r.start for r in part))
                problems.missing.append(Missing(name, None if many or key in there else key, place))


def check_keys(
    blocks: Sequence[Block],
    drops: Sequence[Sent],
    table: ArrayTable,
    problems: Problems,
    *,
    told: Collection[str] = (),
) -> None:
    """Report keys of which some elements are read by no rule, or read twice; keys in `told` are reported already."""
    read = _read_in_part(blocks, table)
    for sent in drops:
        if sent.rule.keys[0].axes:
            read[sent.keys.numbers] = True
    suspects: list[int] = np.flatnonzero(read).tolist()
    if not suspects:
        return
    known = {*told, *(key for problem in problems.conflicts for key in problem.keys)}
    known |= {problem.key for problem in problems.mismatched}
    names = table.names
    order = sorted((n for n in suspects if names[n] not in known), key=names.__getitem__)
    once: dict[int, list[Boxes]] = {n: [] for n in order}
    copied: dict[int, list[Boxes]] = {n: [] for n in order}
    for block in blocks:
        for term in block.terms:
            steps, into = key_steps(term.index_map), copied if block.copy else once
            for place, number in enumerate(term.keys.numbers.tolist()):
                if number in into:
                    into[number].append(Boxes(steps, term.starts[place : place + 1]))
    for sent in drops:
        numbers: list[int] = sent.keys.numbers.tolist()
        for number in numbers:
            if number not in once:
                continue
            try:
                once[number].append(key_box(sent.rule, table.spec(number).shape))
            except ShapeConflict as conflict:
                key = names[number]
                problems.conflicts.append(
                    Conflict(f"rule '{sent.rule}'", f"does not fit {quote(key)}: {conflict}", (key,))
                )
                del once[number]
    # Layers are alike: what their boxes come to is found once.
    covers: dict[object, tuple[Cover, Cover]] = {}
    for number, boxes in once.items():
        shape, others = table.spec(number).shape, copied[number]
        alike = (shape, *(tuple((b.steps, b.starts.tobytes()) for b in group) for group in (boxes, others)))
        if alike not in covers:
            all_ = cover(shape, [*boxes, *others])
            covers[alike] = all_, cover(shape, boxes) if others else all_
        _check_key(names[number], shape, *covers[alike], problems)


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


def _read_in_part(blocks: Sequence[Block], table: ArrayTable) -> npt.NDArray[np.bool_]:
    """For each key of the table whether some map does not read it whole, or several read it."""
    found = np.zeros(len(table), bool)
    times = np.zeros(len(table), np.intp)
    for block in blocks:
        for term in block.terms:
            if not term.index_map.whole_key:
                found[term.keys.numbers] = True
            elif not block.copy:
                np.add.at(times, term.keys.numbers, 1)
    return found | (times > 1)
