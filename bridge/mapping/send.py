"""Where each key goes: the first rule that matches takes it, and its variables say to which name.

Keys that one rule sends along one way differ only in indices. They form a `Sent`, which later rooms handle as one. A
bundle of such keys goes its way as one key, wherever the numbers in its names have no say in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import product

from bridge._text import template
from bridge.mapping.folding import Bundle, bundles
from bridge.mapping.indexmap import Shape
from bridge.mapping.keys import KeyTable
from bridge.mapping.pattern import Codec, Pattern, outermost
from bridge.mapping.places import Row
from bridge.mapping.sent import Sent
from bridge.mapping.solve import Layout, ShapeConflict, factors, solve
from bridge.mapping.target import Carried, Target, concrete
from bridge.rules.check import picked_labels, shaped_branch
from bridge.rules.rule import Rule
from bridge.rules.syntax import Hole, Index, Name, Piece, Wild

INFERENCE = Rule("** -> **")
"""What holds for keys that no rule takes: a leaf's own name is its key."""


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

    def send(self, number: int, table: KeyTable) -> bool:
        """Take a key of the table if it matches."""
        found = self.read(table.names[number])
        if found is None:
            return False
        row, wilds, labels = found
        if not self.rule.pairing and not self.unstacked:
            return self.deliver(number, row, wilds, labels, ())
        taken = False
        for picks in self.picks(labels):
            for more in self.unstack(table.spec(number).shape, shaped_branch(self.rule.pairing, picks)):
                taken |= self.deliver(number, row + more, wilds, labels, picks)
        return taken

    def read(self, key: str) -> tuple[Row, list[str], list[str]] | None:
        """Positions of the indices in `key`, what its wildcards took, its choices; `None` where it does not match."""
        texts = self.pattern.match(key)
        if texts is None:
            return None
        row: Row = ()
        wilds: list[str] = []
        labels: list[str] = []
        for variable, codec, text in zip(self.pattern.variables, self.codecs, texts, strict=True):
            if codec is not None:
                positions = codec.decode(int(text))
                if positions is None:
                    return None
                row += positions
            elif isinstance(variable, Wild):
                wilds.append(text)
            else:
                labels.append(text)
        return row, wilds, labels

    def sweep(self, bundle: Bundle) -> bool | None:
        """Take all keys of a bundle, or none; `None` where each has to be asked by itself."""
        if self.pattern.numeric:
            return None
        probe, columns = bundle.probe
        if self.pattern.match(probe) is None:
            return False
        found = self.read(probe) if self.plain else None
        if found is None:
            return None
        row, wilds, labels = found
        texts = [text for text, soft in zip(wilds, self.target.soft, strict=True) if not soft]
        if any(str(number) in text for number in columns for text in texts):
            return None
        sent, row = self.way_of(row, wilds, labels, ())
        sent.take_all(bundle.keys, bundle.columns([columns.get(number, ~number) for number in row]))
        return True

    @property
    def plain(self) -> bool:
        """Whether the indices in a key's name only count along, whatever they are, and decide nothing."""
        target = self.target
        return (
            not self.rule.pairing
            and not self.unstacked
            and all(codec is None or codec.plain for codec in self.codecs)
            and not target.limited
            and not target.embedded
        )

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

    def deliver(
        self, number: int, row: Row, wilds: Sequence[str], labels: Sequence[str], picks: tuple[int, ...]
    ) -> bool:
        """Add a key to its way, unless an index lies outside the leaf's selection."""
        if self.target.limited and not self.target.accepts(row):
            return False
        sent, row = self.way_of(row, wilds, labels, picks)
        sent.take(number, row)
        return True

    def way_of(self, row: Row, wilds: Sequence[str], labels: Sequence[str], picks: tuple[int, ...]) -> tuple[Sent, Row]:
        """The way of a key, and its row with the indices that wildcards carry."""
        target = self.target
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
        return sent, row

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
        spell = partial(concrete, self.name, Carried(wilds, ()), shown, spelled, target.fresh)
        sent = Sent(rule, self.number, self.side, picks, self.variables, spell)
        if rule.leaf is None:
            return sent
        open_ = {pair.places[-1] for pair in pairing if pair.shaped}
        sent.target, sent.leaf_name, sent.indices = target.fill(
            Carried(wilds, picked_labels(pairing, -1, picks)), row, open_
        )
        sent.group = sent.target
        if pairing:
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
        return Index(index.name, index.selection.resolved(counts[index.name]), index.at)

    def piece(piece: Piece) -> Piece:
        return Hole(tuple(map(index, piece.indices))) if isinstance(piece, Hole) else piece

    return Name(tuple(tuple(map(piece, segment)) for segment in name.segments))


Item = Bundle | int
"""Keys that are decided on as one, or the number of a key by itself."""


def send(rules: Sequence[Rule], table: KeyTable) -> tuple[list[Sent], list[Item]]:
    """Send every key by `rules`; returns the ways, in the order of the rules, and what none takes.

    A rule that selects elements takes those and no others, a rule that copies takes nothing.
    """
    groups = [[Sender(rule, n, side) for side in range(len(rule.keys))] for n, rule in enumerate(rules)]
    for group in groups:
        for sender in group:
            sender.prepare(table.names)
    left: list[Item] = []
    for item in bundles(table):
        left += _one(item, groups, table) if isinstance(item, int) else _all(item, groups, table)
    sents = [sent for group in groups for sender in group for sent in sender.ways.values()]
    return [sent.settle(table) for sent in sents], left


def _one(number: int, groups: Sequence[Sequence[Sender]], table: KeyTable, *, taken: bool = False) -> list[Item]:
    """Send one key; returns it if no rule takes it."""
    for group in groups:
        sender = next((sender for sender in group if sender.send(number, table)), None)
        if sender is not None and not sender.rule.copy:
            taken = True
            if not sender.partial:
                break
    return [] if taken else [number]


def _all(bundle: Bundle, groups: Sequence[Sequence[Sender]], table: KeyTable) -> list[Item]:
    """Send a bundle; returns what no rule takes."""
    taken = False
    for place, group in enumerate(groups):
        for sender in group:
            swept = sender.sweep(bundle)
            if swept is None:
                each = [_one(n, groups[place:], table, taken=taken) for n in bundle.keys.numbers.tolist()]
                return [item for items in each for item in items]
            if swept:
                if not sender.rule.copy:
                    taken = True
                    if not sender.partial:
                        return []
                break
    return [] if taken else [bundle]


def infer(items: Iterable[Item], number: int, table: KeyTable) -> list[Sent]:
    """Send keys that no rule takes to the names that they have: what `INFERENCE` does, without asking it each time."""
    sender = Sender(INFERENCE, number, 0)
    sender.prepare(())
    ways: dict[str, Sent] = {}
    for item in items:
        text, row = (item.text, ()) if isinstance(item, Bundle) else template(table.names[item])
        sent = ways.get(text)
        if sent is None:
            sent = ways[text] = sender.way((), [(text, True)], (), ())
        if isinstance(item, Bundle):
            sent.take_all(item.keys, item.numbers)
        else:
            sent.take(item, row)
    return [sent.settle(table) for sent in ways.values()]
