"""Where each key goes: the first rule that matches takes it, and its variables say to which name.

Keys that one rule sends along one way differ only in indices. They form a `Sent`, which later rooms handle as one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from operator import itemgetter

from bridge._text import filled, template
from bridge.mapping.indexmap import Shape
from bridge.mapping.pattern import Codec, Pattern, Row, outermost
from bridge.mapping.solve import Layout, ShapeConflict, factors, solve
from bridge.mapping.target import Carried, Number, Target, concrete
from bridge.rules.check import picked_labels, shaped_branch
from bridge.rules.rule import Rule
from bridge.rules.syntax import NO_NAME, Hole, Index, Name, Piece, Wild

INFERENCE = Rule("** -> **")
"""What holds for keys that no rule takes: a leaf's own name is its key."""


@dataclass(slots=True, eq=False)
class Sent:
    """Keys that one side of a rule sends to one name, up to indices.

    `rows` are the numbers of `keys`; the first columns are the positions of `variables`. `target` has a `{}` for each
    of the `indices` of the leaf's name; it is `None` for a drop. `picks` says for each of the rule's choices which
    branch this is. `stacked` are the columns of indices that the rule drops from the name without giving them an axis.
    `key_name` and `leaf_name` spell just this way, for `Plan.rules`. Ways of one rule that differ only in a choice
    that an axis holds have the same `group`.
    """

    rule: Rule
    number: int
    side: int
    picks: tuple[int, ...]
    variables: tuple[str, ...]
    key_name: Name
    target: str | None = None
    leaf_name: Name = NO_NAME
    indices: tuple[Number, ...] = ()
    stacked: tuple[int, ...] = ()
    group: str = ""
    keys: list[str] = field(default_factory=list[str])
    rows: list[Row] = field(default_factory=list[Row])

    def numbers(self) -> list[Row]:
        """For each key the indices of the name that it is sent to."""
        if any(number.codec is not None or not number.columns for number in self.indices):
            return [tuple([number.value(row) or 0 for number in self.indices]) for row in self.rows]
        return picked(self.rows, tuple(number.columns[0] for number in self.indices))

    def names(self) -> list[str]:
        """For each key the very name that it is sent to."""
        return [filled(self.target or "", numbers) for numbers in self.numbers()]


def picked(rows: Sequence[Row], columns: Sequence[int]) -> list[Row]:
    """Some columns of all rows."""
    if not columns:
        return [()] * len(rows)
    if len(columns) == 1:
        column = columns[0]
        return [(row[column],) for row in rows]
    return list(map(itemgetter(*columns), rows))


class Sender:
    """One key side of a rule, ready to match keys."""

    def __init__(self, rule: Rule, number: int, side: int) -> None:
        self.rule, self.number, self.side = rule, number, side
        self.name = rule.keys[side].name
        self.pattern = Pattern(self.name)
        named = [index.name for index in self.name.indices()]
        leaf = rule.leaf
        leaf_named = [index.name for index in leaf.name.indices() if not index.single] if leaf else []
        self.counts = dict(rule.sizes)
        self.partial = any(
            isinstance(f, Index) and f.selection is not None for f in factors(rule.keys[side].axes or ())
        )
        axes = {f.name for f in factors(leaf.axes or ()) if isinstance(f, Index)} if leaf else set(named)
        single = {index.name for index in self.name.indices() if index.single}
        placed = axes | single | {index.name for index in (leaf.name.indices() if leaf else ())}
        self.unstacked = tuple(name for name in leaf_named if name not in named)
        self.variables = (*named, *self.unstacked)
        self.stacked = tuple(name for name in named if name not in placed)
        self.open = [n for n, pair in enumerate(rule.pairing) if pair.parts[side] is not None]
        self.chosen = [n for n, pair in enumerate(rule.pairing) if pair.parts[side] is None]
        self.ways: dict[tuple[object, ...], Sent] = {}

    def prepare(self, keys: Iterable[str]) -> None:
        """Fix what a selection may count from the end: the indices of the keys that match."""
        if any(i.selection is not None and not i.selection.bounded for i in self.name.indices()):
            self.counts = self.present(keys) | self.counts
            self.name = _resolved(self.name, self.counts)
        self.codecs = [Codec.of(v, self.counts) if isinstance(v, Hole) else None for v in self.pattern.variables]
        self.target = Target(self.rule, self.side, self.variables, dict(self.rule.sizes))

    def present(self, keys: Iterable[str]) -> dict[str, int]:
        """How many indices there are in the names of `keys`."""
        present: dict[str, int] = {}
        for key in keys:
            texts = self.pattern.match(key)
            for variable, text in zip(self.pattern.variables, texts or (), strict=False):
                if isinstance(variable, Hole):
                    name = variable.indices[0].name
                    present[name] = max(present.get(name, 0), outermost(variable, int(text), self.counts) + 1)
        return present

    def send(self, key: str, shape: Shape) -> bool:
        """Take `key` if it matches."""
        texts = self.pattern.match(key)
        if texts is None:
            return False
        row: Row = ()
        wilds: list[str] = []
        labels: list[str] = []
        for variable, codec, text in zip(self.pattern.variables, self.codecs, texts, strict=True):
            if codec is not None:
                positions = codec.decode(int(text))
                if positions is None:
                    return False
                row += positions
            elif isinstance(variable, Wild):
                wilds.append(text)
            else:
                labels.append(text)
        if not self.rule.pairing and not self.unstacked:
            return self.deliver(key, row, wilds, labels, ())
        taken = False
        for picks in self.picks(labels):
            for more in self.unstack(shape, shaped_branch(self.rule.pairing, picks)):
                taken |= self.deliver(key, row + more, wilds, labels, picks)
        return taken

    def picks(self, labels: Sequence[str]) -> Iterator[tuple[int, ...]]:
        """The branches that this key takes part in: the name settles some choices, an axis holds all of the others."""
        pairing, side = self.rule.pairing, self.side
        settled = {n: pairing[n].labels[side].index(labels[pairing[n].places[side] or 0]) for n in self.chosen}
        ranges = [range(p.count) if n in self.open else (settled[n],) for n, p in enumerate(pairing)]
        return product(*ranges)

    def unstack(self, shape: Shape, branch: int) -> Iterable[Row]:
        """Positions for the indices that the leaf's name has and the tensor holds as an axis."""
        if not self.unstacked:
            return [()]
        try:
            known = solve(Layout.of(self.rule), {(self.side, branch): shape})[0].known
        except ShapeConflict:
            known = {}
        return product(*(range(known.get(name, 1)) for name in self.unstacked))

    def deliver(self, key: str, row: Row, wilds: Sequence[str], labels: Sequence[str], picks: tuple[int, ...]) -> bool:
        """Add `key` to its way, unless an index lies outside the leaf's selection."""
        target = self.target
        if target.limited and not target.accepts(row):
            return False
        shown: tuple[tuple[str, bool], ...] = ()
        if wilds:
            # What `**` took ends in a dot, unless it took no segment at all; what `*` took never does.
            texts = [text.removesuffix(".") for text in wilds]
            carried = [template(text) if soft else (text, ()) for text, soft in zip(texts, target.soft, strict=True)]
            shown = tuple([(text, bool(raw)) for (text, _), raw in zip(carried, wilds, strict=True)])
        else:
            carried = []
        way = (shown, *labels, picks, *[row[column] for column in target.embedded])
        sent = self.ways.get(way)
        if sent is None:
            sent = self.ways[way] = self.way(row, shown, labels, picks)
        for number in target.wilds.values() if carried else ():
            row += carried[number][1]
        sent.keys.append(key)
        sent.rows.append(row)
        return True

    def way(self, row: Row, wilds: Sequence[tuple[str, bool]], labels: Sequence[str], picks: tuple[int, ...]) -> Sent:
        """A way that no key has gone yet."""
        rule, pairing, target = self.rule, self.rule.pairing, self.target
        spelled = {
            hole.indices[0].name: str(codec.encode(row[at : at + len(hole.indices)]))
            for hole, codec, at in self.holes()
            if any(column in target.embedded for column in range(at, at + len(hole.indices)))
        }
        # A choice that shapes an axis stays open in the rule's text, since its branches share extents.
        shaped = {pair.places[self.side] for pair in pairing if pair.shaped}
        shown = [None if place in shaped else label for place, label in enumerate(labels)]
        key_name = concrete(self.name, Carried(wilds, ()), shown, spelled, target.fresh)
        sent = Sent(rule, self.number, self.side, picks, self.variables, key_name)
        if rule.leaf is None:
            return sent
        open_ = {pair.places[-1] for pair in pairing if pair.shaped}
        sent.target, sent.leaf_name, sent.indices = target.fill(
            Carried(wilds, picked_labels(pairing, -1, picks)), row, open_
        )
        common = [0 if pair.shaped else pick for pair, pick in zip(pairing, picks, strict=True)]
        sent.group = target.fill(Carried(wilds, picked_labels(pairing, -1, common)), row).text
        sent.stacked = tuple(self.variables.index(name) for name in self.stacked)
        return sent

    def holes(self) -> Iterator[tuple[Hole, Codec, int]]:
        """The holes of the name, each with its codec and its first column."""
        at = 0
        for variable, codec in zip(self.pattern.variables, self.codecs, strict=True):
            if isinstance(variable, Hole) and codec is not None:
                yield variable, codec, at
                at += len(variable.indices)


def _resolved(name: Name, counts: Mapping[str, int]) -> Name:
    """The name with selections that count from the end written as what they came to."""

    def index(index: Index) -> Index:
        if index.selection is None or index.name not in counts:
            return index
        return replace(index, selection=index.selection.resolved(counts[index.name]))

    def piece(piece: Piece) -> Piece:
        return Hole(tuple(map(index, piece.indices))) if isinstance(piece, Hole) else piece

    return Name(tuple(tuple(map(piece, segment)) for segment in name.segments))


def send(rules: Sequence[Rule], shapes: Mapping[str, Shape]) -> tuple[list[Sent], list[str]]:
    """Send every key of `shapes` by `rules`; returns the ways, in the order of the rules, and the keys that none takes.

    A rule that selects elements takes those and no others, a rule that copies takes nothing.
    """
    senders = [[Sender(rule, n, side) for side in range(len(rule.keys))] for n, rule in enumerate(rules)]
    for group in senders:
        for sender in group:
            sender.prepare(shapes)
    left: list[str] = []
    for key, shape in shapes.items():
        taken = False
        for group in senders:
            sender = next((sender for sender in group if sender.send(key, shape)), None)
            if sender is not None and not sender.rule.copy:
                taken = True
                if not sender.partial:
                    break
        if not taken:
            left.append(key)
    return [sent for group in senders for sender in group for sent in sender.ways.values()], left


def infer(keys: Iterable[str], number: int) -> list[Sent]:
    """Send keys that no rule takes to the names that they have: what `INFERENCE` does, without asking it each time."""
    sender = Sender(INFERENCE, number, 0)
    sender.prepare(())
    ways: dict[str, Sent] = {}
    for key in keys:
        text, row = template(key)
        sent = ways.get(text)
        if sent is None:
            sent = ways[text] = sender.way((), [(text, True)], (), ())
        sent.keys.append(key)
        sent.rows.append(row)
    return list(ways.values())
