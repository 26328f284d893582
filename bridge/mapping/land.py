"""Where what was sent lands: which of a name's indices stay in the name, and which are axes of a stacked leaf.

`layers.{}.weight` may be a list of leaves, one for each index, or one leaf whose first axis is the index. The model
decides; where it leaves two complete readings, that is an error that shows both, never a guess.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from math import prod

import numpy as np

from bridge._text import template
from bridge._values import NamedTuple, Record
from bridge.mapping.indexmap import Shape
from bridge.mapping.keys import Keys
from bridge.mapping.places import Places, Row
from bridge.mapping.sent import Sent
from bridge.mapping.template import Port, Template
from bridge.rules.syntax import Name

_MANY = 8


class Landed(Record):
    """Keys of one `Sent` at one leaf or port, with their rows; `stacks` are the indices that became leading axes.

    `kept` are the indices that stayed in the name.
    """

    sent: Sent
    name: str
    kept: Row
    keys: Keys
    rows: Places
    stacks: Places

    @property
    def depth(self) -> int:
        """How many leading axes the keys are stacked along."""
        return self.stacks.width


class Landing(Record):
    """What became of a `Sent`: where its keys landed, the places of those that did not, the readings if several."""

    landed: list[Landed]
    lost: Sequence[int]
    readings: list[Reading]


class Reading(NamedTuple):
    """One way to read a target: the places of the holes that are axes, and how it spells the name."""

    axes: tuple[int, ...]
    names: Mapping[Row, str]


class Names:
    """The names that targets may land on, folded by index, with what is known of their leading axes."""

    def __init__(self, model: Template) -> None:
        self.model = model
        self.ports: Mapping[str, list[Port]] = model.ports()
        self.depths = {name: model.placed[found[0].placed].depth for name, found in self.ports.items()}
        self.leaves = _folded([*model.leaves, *model.aliases])
        self.all = _folded([*model.leaves, *model.aliases, *self.ports]) if self.ports else self.leaves

    def shape(self, name: str) -> Shape | None:
        """The shape of the leaf called `name`, if it is one."""
        spec = self.model.leaves.get(self.model.aliases.get(name, name))
        return None if spec is None else spec.shape


def _folded(names: Iterable[str]) -> dict[str, dict[Row, str]]:
    folded: dict[str, dict[Row, str]] = {}
    for name in names:
        text, indices = template(name)
        folded.setdefault(text, {})[indices] = name
    return folded


def land(sent: Sent, names: Names) -> Landing:
    """Where the keys of `sent` land by the names of a model."""
    assert sent.target is not None
    explicit = sent.rule.leaf is not None and sent.rule.leaf.axes is not None
    readings = list(_readings(sent.target, names.leaves if explicit else names.all))
    if not readings:
        return Landing([], range(len(sent.keys)), [])
    numbers = sent.numbers()
    if len(readings) > 1:
        complete = [reading for reading in readings if _complete(sent, numbers, reading, names)]
        if len(complete) > 1:
            return Landing([], [], complete)
        readings = complete or sorted(readings, key=lambda r: (-_hits(numbers, r), len(r.axes)))
    return _landed(sent, numbers, readings[0])


def _landed(sent: Sent, numbers: Places, reading: Reading) -> Landing:
    """The keys of `sent` at the names of one reading."""
    stacks = _stacks(sent, numbers, reading.axes)
    if len(reading.axes) == len(sent.indices):  # one leaf takes them all
        name = reading.names.get(())
        if name is None:
            return Landing([], range(len(sent.keys)), [])
        return Landing([Landed(sent, name, (), sent.keys, sent.rows, stacks)], [], [])
    keeps = numbers.columns([n for n in range(len(sent.indices)) if n not in reading.axes]) if reading.axes else numbers
    names = [reading.names.get(kept) for kept in keeps]
    lost = [place for place, name in enumerate(names) if name is None] if None in names else []
    return Landing(_gathered(sent, names, keeps, stacks), lost, [])


def derive(sent: Sent) -> Landing:
    """Where there is no model, keys land at the very names that they were sent to."""
    return Landing(_gathered(sent, sent.names(), sent.numbers(), sent.rows.columns(sent.stacked)), [], [])


def _gathered(sent: Sent, names: Sequence[str | None], keeps: Places, stacks: Places) -> list[Landed]:
    """The keys of `sent` by the names where they landed; those without one are left out."""
    found: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        if name is not None:
            found.setdefault(name, []).append(place)
    if len(found) == 1 and len(next(iter(found.values()))) == len(names):
        return [Landed(sent, name, keeps[0], sent.keys, sent.rows, stacks) for name in found]
    return [
        Landed(sent, name, keeps[places[0]], sent.keys.at(places), sent.rows.at(places), stacks.at(places))
        for name, places in found.items()
    ]


def _stacks(sent: Sent, numbers: Places, axes: Sequence[int]) -> Places:
    """For each key the indices that are leading axes: those that the leaf's name has, then those that it dropped."""
    dropped = sent.rows.columns(sent.stacked)
    if not axes:
        return dropped
    kept = numbers.columns(axes)
    return Places(np.concatenate([kept.matrix, dropped.matrix], axis=1)) if sent.stacked else kept


def spelled(sent: Sent, reading: Reading) -> str:
    """A reading as a user would write it: `a.{i}.{j}.w -> a.{j}.w`, the index that became an axis left out."""
    name = sent.leaf_name
    holes = [n for n, s in enumerate(name.segments) if len(s) == 1 and not isinstance(s[0], str)]
    out = {holes[n] for n in reading.axes if n < len(holes)}
    kept = Name(tuple(s for n, s in enumerate(name.segments) if n not in out) or ((),))
    return f"{sent.key_name} -> {kept}"


def _readings(target: str, folded: Mapping[str, Mapping[Row, str]]) -> Iterator[Reading]:
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


def _hits(numbers: Places, reading: Reading) -> int:
    kept = [n for n in range(numbers.width) if n not in reading.axes]
    return sum(row in reading.names for row in numbers.columns(kept))


def _complete(sent: Sent, numbers: Places, reading: Reading, names: Names) -> bool:
    """Whether every key lands, and each stacked leaf is filled without a hole by tensors of its shape."""
    landing = _landed(sent, numbers, reading)
    if len(landing.lost):
        return False
    bare = sent.rule.leaf is None or sent.rule.leaf.axes is None
    for one in landing.landed:
        shape, depth = names.shape(one.name), one.depth
        if names.depths.get(one.name, depth) != depth:
            return False
        leaf = one.name not in names.depths and bare
        if leaf and (shape is None or any(found != shape[depth:] for found in one.keys.shapes())):
            return False
        if shape is not None and (len(shape) < depth or not _full(set(one.stacks), shape[:depth])):
            return False
    return True


def _full(stacks: set[Row], lead: Shape) -> bool:
    return len(stacks) == prod(lead) and all(a < b for row in stacks for a, b in zip(row, lead, strict=True))
