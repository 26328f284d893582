"""Where each key goes: the first rule that matches takes it, and its variables say to which name.

Keys that one rule sends along one way differ only in indices. They form a `Sent`, which later rooms handle as one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

from bridge._text import template
from bridge.mapping.indexmap import Shape
from bridge.mapping.pattern import Codec, Pattern, outermost
from bridge.mapping.solve import Layout, ShapeConflict, factors, solve
from bridge.mapping.target import Number, Target, concrete
from bridge.rules.check import picked_labels
from bridge.rules.rule import Rule
from bridge.rules.syntax import Hole, Index, Name, Wild

INFERENCE = Rule("** -> **")
"""What holds for keys that no rule takes: a leaf's own name is its key."""

_UNBOUNDED = 1 << 62


@dataclass(frozen=True, slots=True)
class Member:
    """One key: the numbers in its target's holes, the positions of the rule's index variables by name."""

    key: str
    numbers: tuple[int, ...]
    values: dict[str, int]


@dataclass(slots=True)
class Sent:
    """Keys that one side of a rule sends to one name, up to indices.

    `target` has a `{}` for each index of the leaf's name, whose values are a member's `numbers`; it is `None` for a drop.
    `picks` says for each of the rule's choices which branch this is. `stacked` are the indices that the rule drops from
    the name without giving them an axis. `key_name` and `leaf_name` spell just this way, for `Plan.rules`. Ways of one
    rule that differ only in a choice that an axis holds have the same `group`.
    """

    rule: Rule
    number: int
    side: int
    picks: tuple[int, ...]
    target: str | None
    stacked: tuple[str, ...]
    key_name: Name
    leaf_name: Name | None
    indices: tuple[Number, ...]
    group: str
    members: list[Member] = field(default_factory=list[Member])

    def name(self, member: Member) -> str:
        """The very name that a member is sent to."""
        pieces = (self.target or "").split("{}")
        return "".join(a + b for a, b in zip(pieces, [*map(str, member.numbers), ""], strict=True))


class Sender:
    """One key side of a rule, ready to match keys."""

    def __init__(self, rule: Rule, number: int, side: int) -> None:
        self.rule, self.number, self.side = rule, number, side
        self.name = rule.keys[side].name
        self.pattern = Pattern(self.name)
        named = [index.name for index in self.name.indices()]
        leaf = rule.leaf
        leaf_named = [index.name for index in leaf.name.indices()] if leaf else []
        self.counts = dict.fromkeys([*named, *leaf_named], _UNBOUNDED) | dict(rule.sizes)
        self.selective = any(index.selection is not None for index in self.name.indices())
        self.partial = any(isinstance(f, Index) and f.selection is not None for f in factors(rule.keys[side].axes or ()))
        placed = {f.name for f in factors(leaf.axes or ()) if isinstance(f, Index)} | set(leaf_named) if leaf else set(named)
        # One picked index, `{l[5]}`, is a number and no axis, as `x[5]` is in Python.
        single = {i.name for i in self.name.indices() if i.selection is not None and len(i.selection.picked) == 1}
        self.stacked = tuple(name for name in named if name not in placed and name not in single)
        self.unstacked = tuple(name for name in leaf_named if name not in named)
        self.open = [n for n, pair in enumerate(rule.pairing) if pair.parts[side] is not None]
        self.chosen = [n for n, pair in enumerate(rule.pairing) if pair.parts[side] is None]
        self.layout = Layout((rule.keys[side].axes or (),), (), dict(rule.sizes))
        self.ways: dict[tuple[object, ...], Sent] = {}

    def count(self, keys: Iterable[str]) -> None:
        """Learn how many indices there are, where a selection may count from the end."""
        present: dict[str, int] = {}
        for key in keys:
            texts = self.pattern.match(key)
            for variable, text in zip(self.pattern.variables, texts or (), strict=False):
                if isinstance(variable, Hole):
                    name = variable.indices[0].name
                    present[name] = max(present.get(name, 0), outermost(variable, int(text), self.counts) + 1)
        self.counts = present | dict(self.rule.sizes) | {n: c for n, c in self.counts.items() if n not in present}

    def prepare(self) -> None:
        """Fix the codecs, once the counts are known."""
        self.codecs = [Codec.of(v, self.counts) for v in self.pattern.variables if isinstance(v, Hole)]
        self.target = Target(self.rule, self.side, self.counts)

    def send(self, key: str, shape: Shape) -> list[Sent]:
        """Take `key` if it matches; returns the ways that it goes, none where it does not."""
        texts = self.pattern.match(key)
        if texts is None:
            return []
        values: dict[str, int] = {}
        wilds: list[str] = []
        labels: list[str] = []
        codecs = iter(self.codecs)
        for variable, text in zip(self.pattern.variables, texts, strict=True):
            if isinstance(variable, Hole):
                positions = next(codecs).decode(int(text))
                if positions is None:
                    return []
                values.update(zip((i.name for i in variable.indices), positions, strict=True))
            elif isinstance(variable, Wild):
                wilds.append(text)
            else:
                labels.append(text)
        if not self.rule.pairing and not self.unstacked:
            return self.deliver(key, values, wilds, labels, ())
        ways: list[Sent] = []
        for picks in self.picks(labels):
            for more in self.unstack(shape):
                ways += self.deliver(key, values | more, wilds, labels, picks)
        return ways

    def picks(self, labels: Sequence[str]) -> Iterator[tuple[int, ...]]:
        """The branches that this key takes part in: the name settles some choices, an axis holds all of the others."""
        pairing, side = self.rule.pairing, self.side
        settled = {n: pairing[n].labels[side].index(labels[pairing[n].places[side] or 0]) for n in self.chosen}
        ranges = [range(p.count) if n in self.open else (settled[n],) for n, p in enumerate(pairing)]
        return product(*ranges)

    def unstack(self, shape: Shape) -> Iterator[dict[str, int]]:
        """Positions for the indices that the leaf's name has and the tensor holds as an axis."""
        if not self.unstacked:
            yield {}
            return
        try:
            known = solve(self.layout, {(0, 0): shape})[0].known
        except ShapeConflict:
            known = {}
        for positions in product(*(range(known.get(name, 1)) for name in self.unstacked)):
            yield dict(zip(self.unstacked, positions, strict=True))

    def deliver(
        self, key: str, values: dict[str, int], wilds: Sequence[str], labels: Sequence[str], picks: tuple[int, ...]
    ) -> list[Sent]:
        """Add `key` to its way; none where an index lies outside the leaf's selection."""
        # What `**` took ends in a dot, unless it took no segment at all; what `*` took never does.
        texts = [t.removesuffix(".") for t in wilds]
        carried = [template(t) if soft else (t, ()) for t, soft in zip(texts, self.target.soft, strict=True)]
        embedded = tuple(values[name] for name in sorted(self.target.embedded))
        shown = [(text, bool(raw)) for (text, _), raw in zip(carried, wilds, strict=True)]
        way = (*shown, *labels, picks, embedded)
        sent = self.ways.get(way)
        if sent is None:
            sent = self.ways[way] = self.new(values, shown, labels, picks)
        soft = iter([number for _, found in self.in_order(carried) for number in found])
        numbers = [number.value(values, soft) for number in sent.indices]
        if None in numbers:
            return []
        sent.members.append(Member(key, tuple(n for n in numbers if n is not None), values))
        return [sent]

    def in_order(self, carried: Sequence[tuple[str, tuple[int, ...]]]) -> Iterable[tuple[str, tuple[int, ...]]]:
        """What the wildcards carry, in the order in which the leaf's name repeats them."""
        return [carried[n] for n in self.target.wilds.values()] if len(carried) > 1 else carried

    def new(
        self, values: Mapping[str, int], wilds: Sequence[tuple[str, bool]], labels: Sequence[str], picks: tuple[int, ...]
    ) -> Sent:
        """A way that no key has gone yet."""
        rule, pairing = self.rule, self.rule.pairing
        spelled: dict[str, str] = {}
        for variable, codec in zip((v for v in self.pattern.variables if isinstance(v, Hole)), self.codecs, strict=True):
            if any(index.name in self.target.embedded for index in variable.indices):
                spelled[variable.indices[0].name] = str(codec.encode([values[i.name] for i in variable.indices]))
        # A choice that shapes an axis stays open in the rule's text, since its branches share extents.
        shaped = {pair.places[self.side] for pair in pairing if pair.shaped}
        shown = [None if place in shaped else label for place, label in enumerate(labels)]
        key_name = concrete(self.name, wilds, shown, spelled, self.target.fresh)
        common = (rule, self.number, self.side, picks)
        if rule.leaf is None:
            return Sent(*common, None, (), key_name, None, (), "")
        open_ = {pair.places[-1] for pair in pairing if pair.shaped} - {None}
        text, name, numbers = self.target.fill(wilds, picked_labels(pairing, -1, picks), values, open_)
        common_picks = [0 if pair.shaped else pick for pair, pick in zip(pairing, picks, strict=True)]
        group, _, _ = self.target.fill(wilds, picked_labels(pairing, -1, common_picks), values)
        return Sent(*common, text, self.stacked, key_name, name, numbers, group)


def send(rules: Sequence[Rule], shapes: Mapping[str, Shape]) -> tuple[list[Sent], list[str]]:
    """Send every key of `shapes` by `rules`; returns the ways, in the order of the rules, and the keys that none takes."""
    senders = [[Sender(rule, n, side) for side in range(len(rule.keys))] for n, rule in enumerate(rules)]
    for group in senders:
        for sender in group:
            if sender.selective:
                sender.count(shapes)
            sender.prepare()
    left: list[str] = []
    for key, shape in shapes.items():
        taken = False
        for group in senders:
            for sender in group:
                if sender.send(key, shape):
                    taken |= True
                    final = not (sender.rule.copy or sender.partial)
                    break
            else:
                continue
            if final:
                break
        if not taken:
            left.append(key)
    return [sent for group in senders for sender in group for sent in sender.ways.values()], left


def infer(keys: Iterable[str], number: int) -> list[Sent]:
    """Send keys that no rule takes to the names that they have."""
    sender = Sender(INFERENCE, number, 0)
    sender.prepare()
    for key in keys:
        sender.send(key, ())
    return list(sender.ways.values())
