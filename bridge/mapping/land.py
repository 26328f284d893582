"""Where what was sent lands: which of a name's indices stay in the name, and which are axes of a stacked leaf.

`layers.{}.weight` may be a list of leaves, one for each index, or one leaf whose first axis is the index. The model
decides; where it leaves two complete readings, that is an error that shows both, never a guess.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import prod

from bridge._text import template
from bridge.mapping.indexmap import Shape
from bridge.mapping.send import Member, Sent
from bridge.mapping.template import Template

_MANY = 8


@dataclass(frozen=True, slots=True)
class Landed:
    """Members of one `Sent` at one leaf or port, each with the indices that became leading axes.

    `kept` are the indices that stayed in the name.
    """

    sent: Sent
    name: str
    kept: Shape
    arrived: list[tuple[Member, Shape]]


@dataclass(frozen=True, slots=True)
class Reading:
    """One way to read a target: the places of the holes that are axes, and how it spells the name."""

    axes: tuple[int, ...]
    names: Mapping[Shape, str]


class Names:
    """The names that targets may land on, folded by index, with what is known of their leading axes."""

    def __init__(self, model: Template) -> None:
        ports = {name: frozenset(model.placed[p.placed].depth for p in found) for name, found in model.ports().items()}
        self.leaves = _folded([*model.leaves, *model.aliases])
        self.all = _folded([*model.leaves, *model.aliases, *ports])
        self.depths = ports
        self.model = model

    def shape(self, name: str) -> Shape | None:
        """The shape of the leaf called `name`, if it is one."""
        spec = self.model.leaves.get(self.model.aliases.get(name, name))
        return None if spec is None else spec.shape


def _folded(names: Sequence[str]) -> dict[str, dict[Shape, str]]:
    folded: dict[str, dict[Shape, str]] = {}
    for name in names:
        text, indices = template(name)
        folded.setdefault(text, {})[indices] = name
    return folded


def land(sent: Sent, names: Names, shapes: Mapping[str, Shape]) -> tuple[list[Landed], list[Member], list[Reading]]:
    """Where the members of `sent` land, those that land nowhere, and the readings if there are several."""
    assert sent.target is not None
    folded = names.leaves if sent.rule.leaf is not None and sent.rule.leaf.axes is not None else names.all
    readings = list(_readings(sent.target, folded))
    if not readings:
        return [], list(sent.members), []
    if len(readings) > 1:
        complete = [r for r in readings if _complete(sent, r, names, shapes)]
        if len(complete) > 1:
            return [], [], complete
        readings = complete or sorted(readings, key=lambda r: (-_hits(sent, r), len(r.axes)))
    reading = readings[0]
    landed: dict[str, Landed] = {}
    lost: list[Member] = []
    for member in sent.members:
        kept = _kept(member.numbers, reading.axes)
        name = reading.names.get(kept)
        if name is None:
            lost.append(member)
            continue
        stack = (*(member.numbers[n] for n in reading.axes), *(member.values[n] for n in sent.stacked))
        if name not in landed:
            landed[name] = Landed(sent, name, kept, [])
        landed[name].arrived.append((member, stack))
    return list(landed.values()), lost, []


def spelled(sent: Sent, reading: Reading) -> str:
    """A reading as a user would write it: `a.{i}.{j}.w -> a.{j}.w`, the index that became an axis left out."""
    assert sent.leaf_name is not None
    name = sent.leaf_name
    holes = [n for n, s in enumerate(name.segments) if len(s) == 1 and not isinstance(s[0], str)]
    out = {holes[n] for n in reading.axes if n < len(holes)}
    kept = type(name)(tuple(s for n, s in enumerate(name.segments) if n not in out) or ((),))
    return f"{sent.key_name} -> {kept}"


def _kept(numbers: Shape, axes: tuple[int, ...]) -> Shape:
    return tuple(number for place, number in enumerate(numbers) if place not in axes) if axes else numbers


def _readings(target: str, folded: Mapping[str, Mapping[Shape, str]]) -> Iterator[Reading]:
    """The readings of which the model has names, those that keep more indices in the name first."""
    segments = target.split(".")
    holes = [place for place, segment in enumerate(segments) if segment == "{}"]
    counts = range(len(holes) + 1) if len(holes) <= _MANY else (0, 1, len(holes))
    for count in counts:
        for axes in combinations(range(len(holes)), count):
            out = {holes[n] for n in axes}
            found = folded.get(".".join(s for place, s in enumerate(segments) if place not in out))
            if found is not None:
                yield Reading(axes, found)


def _hits(sent: Sent, reading: Reading) -> int:
    return sum(_kept(member.numbers, reading.axes) in reading.names for member in sent.members)


def _complete(sent: Sent, reading: Reading, names: Names, shapes: Mapping[str, Shape]) -> bool:
    """Whether every member lands, every name is met, and each stacked leaf is filled without a hole."""
    stacks: dict[str, set[Shape]] = {}
    depth = len(reading.axes) + len(sent.stacked)
    for member in sent.members:
        name = reading.names.get(_kept(member.numbers, reading.axes))
        if name is None:
            return False
        stack = (*(member.numbers[n] for n in reading.axes), *(member.values[n] for n in sent.stacked))
        stacks.setdefault(name, set()).add(stack)
        shape = names.shape(name)
        plain = name not in names.depths and (sent.rule.leaf is None or sent.rule.leaf.axes is None)
        if plain and (shape is None or shape[depth:] != shapes[member.key]):
            return False
        if depth not in names.depths.get(name, (depth,)):
            return False
    return all(_full(stack, names.shape(name), depth) for name, stack in stacks.items())


def _full(stack: set[Shape], shape: Shape | None, depth: int) -> bool:
    if shape is None:  # a port that is no leaf: its layout counts later
        return True
    lead = shape[:depth]
    return len(stack) == prod(lead) and all(a < b for index in stack for a, b in zip(index, lead, strict=True))
