"""Landed keys gathered into relations: one rule, one set of leaves, and every key that takes part.

A rule without axes that lands on a name of a layer's layout becomes that layout's rule; one that lands on a plain leaf
maps the tensor as it is; one with axes speaks for itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from bridge.mapping.indexmap import Shape
from bridge.mapping.land import Landed, Names, Reading
from bridge.mapping.send import Member, Sent
from bridge.mapping.solve import Layout, prepended
from bridge.mapping.template import Port, Template, branch_names
from bridge.rules.rule import Rule


class Slot(NamedTuple):
    """Where a key takes part: in which term of the user's sum, on which key side and branch of the relation's rule."""

    term: int
    side: int
    branch: int


class Arrival(NamedTuple):
    """A key, its place on the leading axes of a stacked leaf, and the positions of its rule's index variables."""

    key: str
    stack: Shape
    values: Mapping[str, int]


@dataclass(slots=True)
class Relation:
    """One rule between the keys in `slots` and `leaves`, one for each branch."""

    rule: Rule | None
    layout: Layout | None
    leaves: dict[int, str]
    scale: float | int = 1
    add: float | int = 0
    flip: tuple[str, ...] = ()
    tie: bool = False
    copy: bool = False
    depth: int = 0
    slots: dict[Slot, list[Arrival]] = field(default_factory=dict[Slot, list[Arrival]])
    senders: dict[Slot, list[Sent]] = field(default_factory=dict[Slot, "list[Sent]"])

    def arrive(self, slot: Slot, landed: Landed) -> None:
        """Add the keys of `landed`."""
        arrivals = self.slots.setdefault(slot, [])
        arrivals += [Arrival(member.key, stack, member.values) for member, stack in landed.arrived]
        senders = self.senders.setdefault(slot, [])
        if landed.sent not in senders:
            senders.append(landed.sent)

    @property
    def variables(self) -> frozenset[str]:
        """Index variables that are numbers for each key, because a name holds them or a stack has them as an axis."""
        if self.rule is None:
            return frozenset()
        named = {index.name for side in self.rule.keys for index in side.name.indices()}
        named |= {index.name for index in self.rule.leaf.name.indices()} if self.rule.leaf else set()
        return frozenset(named | set(stack_names(self.depth)))


def stack_names(depth: int) -> tuple[str, ...]:
    """The variables of the leading axes of a stacked leaf; no rule can spell them."""
    return tuple(f"@{n}" for n in range(depth))


class Relations:
    """The relations that all landed keys form, in order of first arrival."""

    def __init__(self, model: Template, names: Names | None) -> None:
        self.model, self.names = model, names
        self.ports = model.ports()
        self.found: dict[tuple[object, ...], Relation] = {}
        self.dropped: dict[str, str] = {}

    @classmethod
    def without_model(cls) -> Relations:
        """Where no model says what the leaves are: each target is a leaf."""
        return cls(Template({}), None)

    def derive(self, sent: Sent) -> tuple[list[Landed], list[Member], list[Reading]]:
        """Land every member at the very name that it was sent to."""
        assert sent.target is not None
        pieces = sent.target.split("{}")
        landed: dict[Shape, Landed] = {}
        for member in sent.members:
            if member.numbers not in landed:
                name = "".join(a + b for a, b in zip(pieces, [*map(str, member.numbers), ""], strict=True))
                landed[member.numbers] = Landed(sent, name, member.numbers, [])
            landed[member.numbers].arrived.append((member, tuple(member.values[n] for n in sent.stacked)))
        return list(landed.values()), [], []

    def add(self, landed: Landed) -> None:
        """Add the keys of `landed` to the relations that they belong to."""
        sent = landed.sent
        leaf_side = sent.rule.leaf
        if leaf_side is not None and leaf_side.axes is not None:
            self.explicit(landed)
        elif landed.name in self.ports:
            depth = len(landed.arrived[0][1])
            ports = self.ports[landed.name]
            # A layout may read one leaf in several ways, which differ in how many of its axes are a stack's.
            fitting = [port for port in ports if self.model.placed[port.placed].depth == depth]
            for port in fitting or ports:
                self.by_layout(landed, port)
        else:
            self.plain(landed)

    def explicit(self, landed: Landed) -> None:
        """A rule with axes: its branches share one relation."""
        sent, rule = landed.sent, landed.sent.rule
        shaped = tuple(pair for pair in rule.pairing if pair.shaped)
        branch = 0
        for pair, pick in zip(rule.pairing, sent.picks, strict=True):
            branch = branch * pair.count + pick if pair.shaped else branch
        key = ("rule", sent.number, sent.group, landed.kept, len(landed.arrived[0][1]))
        relation = self.found.get(key)
        if relation is None:
            depth = len(landed.arrived[0][1])
            assert rule.leaf is not None
            sides = (*(side.axes or () for side in rule.keys), prepended(rule.leaf.axes or (), stack_names(depth)))
            layout = Layout(sides, shaped, dict(rule.sizes))
            tie = rule.tie or landed.name in self.model.tied
            relation = Relation(rule, layout, {}, rule.scale, rule.add, rule.flip, tie, rule.copy, depth)
            self.found[key] = relation
        relation.leaves[branch] = self.model.aliases.get(landed.name, landed.name)
        relation.arrive(Slot(0, sent.side, branch), landed)

    def by_layout(self, landed: Landed, port: Port) -> None:
        """A rule without axes onto a layout's name: the layout's rule, at its place in the model."""
        sent = landed.sent
        placed = self.model.placed[port.placed]
        rule = placed.rules[port.rule]
        user = sent.rule
        if rule.leaf is None:
            self.dropped |= {member.key: f"{sent.key_name} -> _" for member, _ in landed.arrived}
            return
        summed = sent.number if len(user.keys) > 1 else None
        depth = len(landed.arrived[0][1])
        tie = user.tie or placed.tied_at is not None
        key = ("port", port.placed, port.rule, tie, user.copy, user.scale, user.add, summed, depth)
        relation = self.found.get(key)
        if relation is None:
            leaves = dict(enumerate(map(placed.leaf, branch_names(rule, -1, rule.leaf.name))))
            layout = None
            if rule.leaf.axes is not None:
                sides = (*(s.axes or () for s in rule.keys), prepended(rule.leaf.axes, stack_names(depth)))
                layout = Layout(sides, tuple(pair for pair in rule.pairing if pair.shaped), dict(rule.sizes))
            scale, add = rule.scale * user.scale, rule.scale * user.add + rule.add
            relation = Relation(rule, layout, leaves, scale, add, rule.flip, tie, user.copy, depth)
            self.found[key] = relation
        relation.arrive(Slot(sent.side, port.side, port.branch), landed)

    def plain(self, landed: Landed) -> None:
        """A rule without axes onto a leaf: the tensor as it is."""
        sent, rule = landed.sent, landed.sent.rule
        name = self.model.aliases.get(landed.name, landed.name)
        summed = sent.number if len(rule.keys) > 1 else None
        tie, depth = rule.tie or landed.name in self.model.tied, len(landed.arrived[0][1])
        key = ("leaf", name, tie, rule.copy, rule.scale, rule.add, summed, depth)
        relation = self.found.get(key)
        if relation is None:
            relation = Relation(None, None, {0: name}, rule.scale, rule.add, (), tie, rule.copy, depth)
            self.found[key] = relation
        relation.arrive(Slot(sent.side, 0, 0), landed)
