"""Where a bound rule lands: which indices of its leaf's name stay in the name, and which are axes of a stacked leaf.

`layers.{l}.weight` may be a list of leaves, one for each index, or one leaf whose first axis is the index. The model
decides; where it leaves two complete readings, that is an error that shows both, never a guess.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import combinations
from math import prod
from typing import NamedTuple

import numpy as np

from bridge._text import is_index, template
from bridge.mapping.arrays import ArrayTable, Numbers
from bridge.mapping.bound import BoundRule, NameRows
from bridge.mapping.names import Family, NameIndex, family_text
from bridge.mapping.pattern import Column, encoded, hole_of, located, number_of
from bridge.mapping.template import Template, branch_names
from bridge.rules.check import Pairing, branch_picks, picked_labels
from bridge.rules.rule import Rule
from bridge.rules.syntax import Choice, Name, joined

_MANY = 8  # numbers in one name, beyond which only some of the readings are tried


class Port(NamedTuple):
    """Where a name that PyTorch uses comes in at a layout: a rule of the layout, a key side of it and a branch.

    `depth` leading axes of the layer's leaves are a stack's; the last `tail` segments of the name are the layer's own;
    `tied_to` is the prefix of the layer whose leaves a copy shares, else `None`. `whole`: as `Placed` has it.
    """

    rule: Rule
    side: int
    branch: int
    depth: int
    tail: int
    tied_to: str | None
    whole: bool


class Standing(NamedTuple):
    """What stands at a name: a leaf, which `tied` says is shared with a copy of that name, or `ports` of layouts.

    `leaf` is the leaf's own name where that is another, as a template where both have the same numbers (`alike`);
    `layered` says that a layout has this own name.
    """

    ports: tuple[Port, ...] = ()
    tied: bool = False
    leaf: str | None = None
    alike: bool = True
    layered: bool = False


class ModelNames:
    """The names that a model answers to: its leaves, other spellings of them, and what layouts call their keys.

    The first names are the leaves', in their order. Of name `n`, `leaves[n]` is the leaf that it means, -1 without one;
    what stands there is `kinds[standing[n]]`, or `kinds[plain[n]]` for a rule with axes, which knows no layouts.
    """

    def __init__(self, model: Template) -> None:
        self.model = model
        own = list(model.leaves)
        others = [name for name in model.aliases if name not in model.leaves]
        ports = model.ports()
        extra = [name for name in ports if name not in model.leaves and name not in model.aliases]
        self.explicit = NameIndex([*own, *others])
        self.all = NameIndex([*own, *others, *extra]) if extra else self.explicit
        count = len(self.all.names)
        self.leaves = np.arange(count)
        self.leaves[len(own) :] = [self.numbers[model.aliases[name]] for name in others] + [-1] * len(extra)
        self.kinds = [Standing()]
        self._known = {Standing(): 0}
        self.plain = np.zeros(count, np.intp)
        for number, name in enumerate(others, len(own)):
            self.plain[number] = self._kind(_alias(name, model, layered=model.aliases[name] in ports))
        self.standing = self.plain.copy() if ports else self.plain
        self.placed: dict[int, list[int]] = {}
        places = {name: number for number, name in enumerate(self.all.names)} if ports else {}
        for name, found in ports.items():
            self.placed[places[name]] = [placed for placed, _, _, _ in found]
            self.standing[places[name]] = self._kind(Standing(tuple([_port(name, model, *port) for port in found])))

    def _kind(self, standing: Standing) -> int:
        number = self._known.setdefault(standing, len(self.kinds))
        if number == len(self.kinds):
            self.kinds.append(standing)
        return number

    @cached_property
    def numbers(self) -> Mapping[str, int]:
        """The number of each leaf."""
        return {name: number for number, name in enumerate(self.model.leaves)}

    @cached_property
    def table(self) -> ArrayTable:
        """The leaves by number."""
        return ArrayTable.of(self.model.leaves)

    def leaf(self, name: str) -> int | None:
        """The leaf of a name at which nothing else stands; -1 for no name of the model, `None` for other names."""
        number = self.numbers.get(name)
        if number is not None:
            return number if self.standing[number] == 0 else None
        return -1 if name not in self.all.families and not any(map(is_index, name.split("."))) else None

    def index(self, *, explicit: bool) -> NameIndex:
        """The names that a rule may land on: one with axes knows no layouts."""
        return self.explicit if explicit else self.all

    def behind(self, number: int, depth: int) -> int | None:
        """The leaf that a layout fills from a name for stacks of `depth` axes; -1 if for others, `None` without one."""
        ports = self.kinds[int(self.standing[number])].ports
        filling = [(n, port) for n, port in enumerate(ports) if port.rule.leaf is not None]
        for n, port in filling:
            if port.depth == depth:
                return self.filled_by(self.placed[number][n], port.rule)[port.branch]
        return -1 if filling else None

    def filled_by(self, placed: int, rule: Rule) -> list[int]:
        """The leaves that a rule of a placed layout fills, one for each branch."""
        layer = self.model.placed[placed]
        return [self.numbers[layer.leaf(name)] for name in branch_names(rule, -1)]


def _alias(name: str, model: Template, *, layered: bool) -> Standing:
    leaf = model.aliases[name]
    (_, here), (text, there) = template(name), template(leaf)
    return Standing((), name in model.tied, text if here == there else leaf, here == there, layered)


def _port(name: str, model: Template, placed: int, rule: int, side: int, branch: int) -> Port:
    layer = model.placed[placed]
    at = layer.prefix if layer.tied_at is None else layer.tied_at
    tail = (name[len(at) + 1 :] if at else name).count(".") + 1
    tied_to = None if layer.tied_at is None else layer.prefix
    return Port(layer.rules[rule], side, branch, layer.depth, tail, tied_to, layer.whole)


Landing = tuple[int, ...]
"""One reading of a leaf's name: the segments whose numbers are axes."""


def family_of(bound: BoundRule, landing: Landing, branch: int, index: NameIndex) -> Family | None:
    """The names of the model that a bound rule may land on, by one reading of its leaf's name in one branch."""
    assert bound.leaf is not None
    segments = branch_name(bound.leaf, bound.rule.pairing, -1, branch).segments
    text = family_text(Name(tuple(s for at, s in enumerate(segments) if at not in landing) or ((),)))
    return None if text is None else index.families.get(text)


def branch_name(name: Name, pairing: Pairing, side: int, branch: int) -> Name:
    """A side's name with the choices that axes hold filled in, in one branch of those."""
    if not any(isinstance(piece, Choice) for piece in name.pieces()):
        return name
    shaped = [pair for pair in pairing if pair.shaped]
    labels = iter(picked_labels(shaped, side, branch_picks(shaped, branch)))
    filled = [[next(labels) if isinstance(piece, Choice) else piece for piece in s] for s in name.segments]
    return Name(tuple(map(joined, filled)))


def land(bound: BoundRule, names: ModelNames, table: ArrayTable, *, explicit: bool) -> list[Landing]:
    """How the leaf's name of a bound rule is read: one reading, none, or several that are all complete."""
    index = names.index(explicit=explicit)
    found: list[Landing] = []
    for branch in dict.fromkeys(branch for _, branch in bound.rows):
        found = list(_readings(bound, branch, index))
        if found:
            break
    if len(found) < 2:
        return found
    complete = [landing for landing in found if _is_complete(bound, landing, names, table, explicit=explicit)]
    if len(complete) > 1 and not explicit and all(_drops(bound, landing, names) for landing in complete):
        return complete[:1]  # whichever it is, no leaf gets the keys
    if complete:
        return complete
    return sorted(found, key=lambda landing: (-_hits(bound, landing, names, explicit=explicit), len(landing)))[:1]


def _readings(bound: BoundRule, branch: int, index: NameIndex) -> Iterator[Landing]:
    """The readings of which the model has names, those that keep more indices in the name first."""
    assert bound.leaf is not None
    segments = branch_name(bound.leaf, bound.rule.pairing, -1, branch).segments
    known = {name for parts in bound.rows.values() for part in parts for name in part.columns}
    places: list[int] = []
    for at, segment in enumerate(segments):
        hole = hole_of(segment)
        if number_of(segment) is not None or (hole and all(i.name in known or i.single for i in hole.indices)):
            places.append(at)
    for count in range(len(places) + 1) if len(places) <= _MANY else (0, 1, len(places)):
        for axes in combinations(places, count):
            if family_of(bound, axes, branch, index) is not None:
                yield axes


def kept_numbers(bound: BoundRule, landing: Landing, branch: int, rows: NameRows) -> list[Column | None]:
    """The numbers that stay in the leaf's name, for each row; `None` where the tensor holds the index as an axis."""
    assert bound.leaf is not None
    found: list[Column | None] = []
    for at, segment in enumerate(branch_name(bound.leaf, bound.rule.pairing, -1, branch).segments):
        hole, number = hole_of(segment), number_of(segment)
        if at in landing or (hole is None and number is None):
            continue
        if hole is None:
            found.append(np.full(len(rows.ids), number, np.int64))
        elif all(index.name in rows.columns or index.single for index in hole.indices):
            found.append(encoded(hole, bound.sizes, rows.columns, len(rows.ids)))
        else:
            found.append(None)
    return found


def stack_numbers(bound: BoundRule, landing: Landing, side: int, rows: NameRows) -> list[Column]:
    """The numbers that are leading axes, for each row: those that the name has, then those that it dropped."""
    assert bound.leaf is not None
    found: list[Column] = []
    for at in landing:
        hole, number = hole_of(bound.leaf.segments[at]), number_of(bound.leaf.segments[at])
        if hole is None:
            found.append(np.full(len(rows.ids), number, np.int64))
        else:
            found.append(encoded(hole, bound.sizes, rows.columns, len(rows.ids)))
    return found + [rows.columns[name] for name in bound.dropped(side)]


def places(kept: Sequence[Column], family: Family | None, count: int) -> Numbers:
    """The name of the model that each row lands on, -1 where there is none."""
    if family is None:
        return np.full(count, -1, np.intp)
    at = located(kept, family.numbers, count)
    return np.where(at < 0, -1, family.ids[at])


def _landed(bound: BoundRule, landing: Landing, index: NameIndex) -> Iterator[tuple[int, NameRows, Numbers]]:
    """The rows of each side and branch, and the names that they land on."""
    for side, branch in bound.rows:
        rows = bound.joined(side, branch)
        kept = kept_numbers(bound, landing, branch, rows)
        if all(column is not None for column in kept):
            family = family_of(bound, landing, branch, index)
            yield side, rows, places([c for c in kept if c is not None], family, len(rows.ids))


def _hits(bound: BoundRule, landing: Landing, names: ModelNames, *, explicit: bool) -> int:
    landed = _landed(bound, landing, names.index(explicit=explicit))
    return sum(int((found >= 0).sum()) for _, _, found in landed)


def _drops(bound: BoundRule, landing: Landing, names: ModelNames) -> bool:
    """Whether layouts drop all keys of a bound rule, by one reading."""
    found = {n for _, _, at in _landed(bound, landing, names.all) for n in np.unique(at).tolist() if n >= 0}
    ports = [port for n in found for port in names.kinds[int(names.standing[n])].ports]
    return bool(ports) and all(port.rule.leaf is None for port in ports)


def _is_complete(bound: BoundRule, landing: Landing, names: ModelNames, table: ArrayTable, *, explicit: bool) -> bool:
    """Whether every key lands, and each stacked leaf is filled without a hole by tensors of its shape."""
    for side, rows, found in _landed(bound, landing, names.index(explicit=explicit)):
        if (found < 0).any():
            return False
        stacks = stack_numbers(bound, landing, side, rows)
        by_name: dict[int, tuple[set[tuple[int, ...]], set[tuple[int, ...]]]] = {}
        columns = zip(*(column.tolist() for column in stacks), strict=True) if stacks else [()] * len(rows.ids)
        for number, key, stack in zip(found.tolist(), rows.ids.tolist(), columns, strict=True):
            seen, shapes = by_name.setdefault(number, (set(), set()))
            seen.add(stack)
            shapes.add(table.spec(key).shape)
        if not all(_is_full(n, *e, len(stacks), names, explicit=explicit) for n, e in by_name.items()):
            return False
    return True


def _is_full(
    name: int,
    seen: set[tuple[int, ...]],
    shapes: set[tuple[int, ...]],
    depth: int,
    names: ModelNames,
    *,
    explicit: bool,
) -> bool:
    """Whether the places `seen` of a stack are all there are, and tensors of these `shapes` fit."""
    layered = None if explicit else names.behind(name, depth)
    if layered == -1:
        return False
    leaf = int(names.leaves[name]) if layered is None else layered
    if leaf < 0:
        return True
    shape = names.table.spec(leaf).shape
    if layered is None and not explicit and any(found != shape[depth:] for found in shapes):
        return False
    lead = shape[:depth]
    inside = all(number < extent for place in seen for number, extent in zip(place, lead, strict=False))
    return len(shape) >= depth and len(seen) == prod(lead) and inside
