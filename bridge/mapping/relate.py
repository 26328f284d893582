"""Landed keys gathered into relations: one rule, one set of leaves, and every key that takes part.

A rule without axes that lands on a name of a layer's layout becomes that layout's rule; one that lands on a plain leaf
maps the tensor as it is; one with axes speaks for itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from bridge._values import NamedTuple, Record
from bridge.mapping.land import Landed, Names
from bridge.mapping.solve import Layout, stack_names
from bridge.mapping.template import Port, Template, branch_names
from bridge.rules.check import shaped_branch
from bridge.rules.rule import Rule


class Slot(NamedTuple):
    """Where a key takes part: in which term of the user's sum, on which key side and branch of the relation's rule."""

    term: int
    side: int
    branch: int


class Relation(Record):
    """One rule between the keys in `slots` and `leaves`, one for each branch. `terms` are added up in each place."""

    rule: Rule | None
    layout: Layout | None
    leaves: dict[int, str]
    scale: float | int = 1
    add: float | int = 0
    flip: tuple[str, ...] = ()
    tie: bool = False
    copy: bool = False
    depth: int = 0
    terms: int = 1
    slots: dict[Slot, list[Landed]] = field(default_factory=dict[Slot, "list[Landed]"])

    def arrive(self, slot: Slot, landed: Landed) -> None:
        """Add the keys of `landed`."""
        self.slots.setdefault(slot, []).append(landed)

    @property
    def variables(self) -> frozenset[str]:
        """Index variables that are numbers for each key, because a name holds them or a stack has them as an axis."""
        if self.rule is None:
            return frozenset()
        named = {index.name for side in self.rule.keys for index in side.name.indices()}
        named |= {index.name for index in self.rule.leaf.name.indices()} if self.rule.leaf else set()
        return frozenset(named | set(stack_names(self.depth)))


class Relations:
    """The relations that all landed keys form, in order of first arrival."""

    def __init__(self, names: Names | None) -> None:
        self.model = Template({}) if names is None else names.model
        self.ports: Mapping[str, list[Port]] = {} if names is None else names.ports
        self.found: dict[tuple[object, ...], Relation] = {}
        self.spent: dict[str, str] = {}

    def add(self, landed: Landed) -> None:
        """Add the keys of `landed` to the relations that they belong to."""
        leaf_side = landed.sent.rule.leaf
        if leaf_side is not None and leaf_side.axes is not None:
            self.explicit(landed)
        elif landed.name in self.ports:
            ports = self.ports[landed.name]
            # A layout may read one leaf in several ways, which differ in how many of its axes are a stack's.
            fitting = [port for port in ports if self.model.placed[port.placed].depth == landed.depth]
            for port in fitting or ports:
                self.by_layout(landed, port)
        else:
            self.plain(landed)

    def explicit(self, landed: Landed) -> None:
        """A rule with axes: its branches share one relation."""
        sent, rule = landed.sent, landed.sent.rule
        branch = shaped_branch(rule.pairing, sent.picks)
        key = ("rule", sent.number, sent.group, landed.kept, landed.depth)
        relation = self.found.get(key)
        if relation is None:
            relation = self.found[key] = Relation(
                rule,
                Layout.of(rule, landed.depth),
                {},
                rule.scale,
                rule.add,
                rule.flip,
                rule.tie or landed.name in self.model.tied,
                rule.copy,
                landed.depth,
                len(rule.keys),
            )
        relation.leaves[branch] = self.model.aliases.get(landed.name, landed.name)
        relation.arrive(Slot(0, sent.side, branch), landed)

    def by_layout(self, landed: Landed, port: Port) -> None:
        """A rule without axes onto a layout's name: the layout's rule, at its place in the model."""
        sent, user = landed.sent, landed.sent.rule
        placed = self.model.placed[port.placed]
        rule = placed.rules[port.rule]
        if rule.leaf is None:
            text = str(Rule(f"{sent.key_name} -> {sent.leaf_name}"))
            self.spent |= dict.fromkeys(landed.keys, text)
            return
        summed = sent.number if len(user.keys) > 1 else None
        tie = user.tie or placed.tied_at is not None
        several = sent.number if tie else None
        key = ("port", port.placed, port.rule, several, user.copy, user.scale, user.add, summed, landed.depth)
        relation = self.found.get(key)
        if relation is None:
            relation = self.found[key] = Relation(
                rule,
                None if rule.leaf.axes is None else Layout.of(rule, landed.depth),
                dict(enumerate(map(placed.leaf, branch_names(rule, -1, rule.leaf.name)))),
                rule.scale * user.scale,
                rule.scale * user.add + rule.add,
                rule.flip,
                tie,
                user.copy,
                landed.depth,
                len(rule.keys) * len(user.keys),
            )
        relation.arrive(Slot(sent.side, port.side, port.branch), landed)

    def plain(self, landed: Landed) -> None:
        """A rule without axes onto a leaf: the tensor as it is."""
        sent, rule, depth = landed.sent, landed.sent.rule, landed.depth
        name = self.model.aliases.get(landed.name, landed.name)
        tie = rule.tie or landed.name in self.model.tied
        # Each tie is compared with the leaf: several do not fill it twice. Each sum is one of its own.
        apart = landed.name if tie else None, sent.number if tie or len(rule.keys) > 1 else None
        key = ("leaf", name, depth, apart, rule.copy, rule.scale, rule.add)
        relation = self.found.get(key)
        if relation is None:
            relation = self.found[key] = Relation(
                None, None, {0: name}, rule.scale, rule.add, (), tie, rule.copy, depth, len(rule.keys)
            )
        relation.arrive(_PLAIN if sent.side == 0 else Slot(sent.side, 0, 0), landed)


_PLAIN = Slot(0, 0, 0)
