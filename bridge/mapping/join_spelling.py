"""The rules of layouts that join keys, with the names that the keys came by: as one rule, or part by part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from bridge._errors import PlanError
from bridge._text import quote
from bridge.mapping.arrays import Shape
from bridge.mapping.solve import RuleAxes, solve
from bridge.rules.check import PairedChoice
from bridge.rules.rule import Rule
from bridge.rules.syntax import (
    Axes,
    Axis,
    Choice,
    Factor,
    Index,
    JoinedParts,
    Name,
    PartExtent,
    Segment,
    Selection,
    Side,
)


class PartRule(NamedTuple):
    """What fills one part of a joined leaf: a key, the axes of the leaf, and the extents that these do not tell."""

    key: Side
    leaf: Axes
    sizes: Mapping[str, int]


def joined_key(names: Sequence[Name], pair: PairedChoice) -> tuple[Name, Mapping[str, str]] | None:
    """The names of all parts, in the order of the branches, as one with a choice; and parts to be called otherwise.

    `None` where the names differ in more than one segment, or in more than text.
    """
    parts = pair.parts[-1]
    assert parts is not None
    names = [names[pair.labels[-1].index(label)] for label in parts.labels]
    first = names[0].segments
    if len({len(name.segments) for name in names}) > 1:
        return None
    apart = [at for at in range(len(first)) if any(name.segments[at] != first[at] for name in names)]
    if len(apart) != 1:
        return None
    texts = [text for name in names if (text := _text(name.segments[apart[0]])) is not None]
    if len(texts) != len(names) or len(set(texts)) != len(texts):
        return None
    head, inner, tail = _around(texts, parts.labels)
    # Choices of which only some are called alike would not say how they pair.
    other: dict[str, str] = {}
    if set(inner) != set(parts.labels):
        for label in parts.labels:
            new = label
            while new in inner or new in other.values():
                new += "_"
            other[label] = new
    segment = (*([head] if head else []), Choice(inner), *([tail] if tail else []))
    return Name((*first[: apart[0]], segment, *first[apart[0] + 1 :])), other


def _around(texts: Sequence[str], labels: Sequence[str]) -> tuple[str, tuple[str, ...], str]:
    """The labels in the texts, with what stands before and behind all of them; else the whole texts as labels."""
    for at in range(len(texts[0])):
        head, tail = texts[0][:at], texts[0][at + len(labels[0]) :]
        if all(text == head + label + tail for text, label in zip(texts, labels, strict=True)):
            return head, tuple(labels), tail
    return "", tuple(texts), ""


def _text(segment: Segment) -> str | None:
    """A segment that is text alone."""
    return str(segment[0]) if len(segment) == 1 and isinstance(segment[0], str) else None


def parts_apart(rule: Rule, names: Sequence[Name], shapes: Sequence[Shape | None]) -> Iterator[PartRule]:
    """A rule for each part: `b.k [x m] -> qkv [x[4:6] m] ; x=8`. Needs the keys' shapes, one for each branch.

    **Raises:** `PlanError` where layers that one rule speaks of have parts of several widths.
    """
    (pair,) = rule.pairing
    parts, leaf, key = pair.parts[-1], rule.leaf, rule.keys[0]
    assert parts is not None
    assert leaf is not None
    known = {(0, branch): shape for branch, shape in enumerate(shapes) if shape is not None}
    extents, _ = solve(RuleAxes.of(rule), known)
    widths = {label: extents.known.get(f"|0:{branch}") for branch, label in enumerate(pair.labels[-1])}
    if len(known) < len(shapes) or None in widths.values():
        shown = ", ".join(quote(str(name)) for name in names)
        raise PlanError(
            shown,
            (
                "are parts of one leaf, are not equally wide in all layers, and differ in more than one "
                "segment of their names, which no rule can say"
            ),
            "Rename them so that they differ in one segment",
        )
    one_wide = not any(isinstance(factor, PartExtent) for factor in key.factors())
    taken = {f.name for side in (key, leaf) for f in side.factors() if isinstance(f, Index)}
    taken |= {index.name for name in names for index in name.indices()}
    axis = "part"
    while axis in taken:
        axis += "_"
    total, start = sum(width or 0 for width in widths.values()), 0
    for label in parts.labels:
        width = widths[label] or 0
        chosen = Selection(picked=(start,)) if one_wide else Selection(start, start + width)
        side = Side(names[pair.labels[-1].index(label)], _filled(key.axes or (), Index(axis)))
        yield PartRule(side, _filled(leaf.axes or (), Index(axis, chosen)), {axis: total})
        start += width


def _filled(axes: Axes, index: Index) -> Axes:
    """The axes with an index in the place of the parts."""

    def one(factor: Factor) -> Factor:
        return index if isinstance(factor, PartExtent | JoinedParts) else factor

    return tuple(Axis(tuple(map(one, axis.factors))) if isinstance(axis, Axis) else axis for axis in axes)
