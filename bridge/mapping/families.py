"""Which maps a relation's keys have: shapes are solved and proven, and what does not fit is reported."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bridge.mapping.indexmap import Shape, oversized
from bridge.mapping.land import Landed
from bridge.mapping.lower import Family, lower, stacked
from bridge.mapping.problem import Conflict, Mismatched, Problems
from bridge.mapping.relate import Relation, Slot
from bridge.mapping.solve import Layout, Place, ShapeConflict, expected, solve, stack_names
from bridge.mapping.template import Spec

Shaped = dict[Shape, Family]
"""The maps of one slot, by the shape of the key."""


class Families:
    """Finds the maps of relations. `leaves` is `None` where there is no model; `derived` are the shapes found then.

    `failed` are the leaves of relations whose shapes do not fit, `hollow` places of leaves that stay empty for that
    reason and are not reported.
    """

    def __init__(self, leaves: Mapping[str, Spec] | None, problems: Problems) -> None:
        self.leaves, self.problems = leaves, problems
        self.derived: dict[str, Shape] = {}
        self.failed: set[str] = set()
        self.hollow: set[str] = set()
        self.solved: dict[object, dict[Place, Family]] = {}

    def of(self, relation: Relation) -> dict[Place, Shaped]:
        """For each side and branch that keys arrive at, the maps by key shape."""
        if relation.layout is None:
            return {(slot.side, slot.branch): self.plain(relation, slot) for slot in relation.slots}
        layout = relation.layout
        if self.leaves is None:
            layout = Layout(layout.sides, layout.pairing, {**_counts(relation), **layout.sizes})
        slots: dict[Place, Slot] = {}
        for slot in sorted(relation.slots):
            slots.setdefault((slot.side, slot.branch), slot)
        shapes: dict[Place, Shape] = {}
        if self.leaves is not None:
            leaf_side = len(layout.sides) - 1
            shapes = {(leaf_side, branch): self.leaves[name].shape for branch, name in relation.leaves.items()}
        shapes |= {place: relation.slots[slot][0].keys.shape(0) for place, slot in slots.items()}
        wanted: dict[Place, Shape | None] = {}
        for place, slot in slots.items():
            first = relation.slots[slot][0].keys[0]
            same = {other for other, its in slots.items() if relation.slots[its][0].keys[0] == first}
            wanted[place] = expected(layout, shapes, place, same)
        told: set[str] = set()
        for place, slot in slots.items():
            shapes[place] = self.agreed(relation, slot, wanted[place], told)
        try:
            found = self.solve(relation, layout, shapes, list(slots))
        except ShapeConflict as conflict:
            self.failed.update(relation.leaves.values())
            self.conflict(relation, {slot: wanted[place] for place, slot in slots.items()}, str(conflict))
            return {}
        return {place: {shapes[place]: family} for place, family in found.items()}

    def plain(self, relation: Relation, slot: Slot) -> Shaped:
        """The maps of a relation without axes."""
        families: Shaped = {}
        leaf, names = relation.leaves[slot.branch], stack_names(relation.depth)
        leaf_shape = self.leaf_shape(relation, slot)
        for landed in relation.slots[slot]:
            wrong: list[int] = []
            for shape, places in landed.keys.by_shape().items():
                try:
                    families[shape] = families.get(shape) or stacked(shape, leaf_shape, names)
                except ShapeConflict:
                    wrong += places.tolist()
            wanted = leaf_shape[relation.depth :] if len(leaf_shape) >= relation.depth else None
            for place in sorted(wrong):
                self.mismatch(leaf, landed, place, wanted)
        return families

    def leaf_shape(self, relation: Relation, slot: Slot) -> Shape:
        """The shape of a leaf, or the one that the keys give it."""
        leaf = relation.leaves[slot.branch]
        if self.leaves is not None:
            return self.leaves[leaf].shape
        most = np.max([landed.stacks.matrix.max(axis=0) for landed in relation.slots[slot]], axis=0)
        lead: Shape = tuple((most + 1).tolist())
        first = relation.slots[slot][0].keys.shape(0)
        self.derive(leaf, (*lead, *first))
        return (*lead, *first)

    def derive(self, leaf: str, shape: Shape) -> None:
        """Where there is no model: a leaf has the shape that its keys give it, all of them the same."""
        if self.leaves is None and self.derived.setdefault(leaf, shape) != shape and leaf not in self.failed:
            self.failed.add(leaf)
            text = f"its keys make its shape both {self.derived[leaf]} and {shape}: send them to leaves of their own"
            self.problems.conflicts.append(Conflict(leaf, text))
        elif leaf not in self.failed and (reason := oversized(shape)) is not None:
            self.failed.add(leaf)
            self.problems.conflicts.append(Conflict(leaf, f"would have {reason}"))

    def agreed(self, relation: Relation, slot: Slot, wanted: Shape | None, told: set[str]) -> Shape:
        """The one shape that the keys of a slot must have; reports those that have another, each once."""
        found = dict.fromkeys(shape for landed in relation.slots[slot] for shape in landed.keys.shapes())
        if len(found) == 1:
            return next(iter(found))
        wanted = wanted if wanted in found else next(iter(found))
        for landed in relation.slots[slot]:
            for number, key in enumerate(landed.keys):
                if landed.keys.shape(number) == wanted:
                    continue
                if key in told:
                    self.hollow.add(relation.leaves[slot.branch] + _place(landed, number))
                else:
                    told.add(key)
                    self.mismatch(relation.leaves[slot.branch], landed, number, wanted)
        return wanted

    def solve(
        self, relation: Relation, layout: Layout, shapes: dict[Place, Shape], places: list[Place]
    ) -> dict[Place, Family]:
        """The families of a relation with axes. Equal rules with equal shapes are solved once."""
        key = (relation.rule, relation.depth, tuple(sorted(shapes.items())))
        if key in self.solved and self.leaves is not None:
            return self.solved[key]
        leaf_side = len(layout.sides) - 1
        extents, rests = solve(layout, shapes)
        if unsolved := extents.unsolved():
            words = f"{', '.join(unsolved[:-1])} and {unsolved[-1]} are" if len(unsolved) > 1 else f"{unsolved[0]} is"
            shown = ", ".join(f"{name}=…" for name in unsolved)
            raise ShapeConflict(f"the shapes do not say how wide {words}: add '; {shown}'")
        families: dict[Place, Family] = {}
        for place in places:
            leaf_shape = shapes.get((leaf_side, place[1])) or extents.shape((leaf_side, place[1]), rests.get(place[1]))
            assert leaf_shape is not None
            self.derive(relation.leaves[place[1]], leaf_shape)
            pair = (shapes[place], leaf_shape)
            families[place] = lower(layout, extents, place, pair, relation.variables, relation.flip)
        self.solved[key] = families
        return families

    # Reports

    def mismatch(self, leaf: str, landed: Landed, number: int, wanted: Shape | None, reason: str = "") -> None:
        """Report the shape of one key."""
        key = landed.keys[number]
        problem = Mismatched(leaf, key, wanted, landed.keys.shape(number), reason, _place(landed, number))
        self.problems.mismatched.append(problem)

    def conflict(self, relation: Relation, slots: dict[Slot, Shape | None], reason: str) -> None:
        """Report a relation whose shapes do not fit: the keys whose shape is not what the others make it."""
        from bridge.mapping.respell import respell

        slot = next(iter(slots))
        rule = respell(relation, [slot], [relation.slots[slot][0]]) if relation.terms == 1 else str(relation.rule)
        told: set[str] = set()
        for slot, wanted in slots.items():
            for landed in relation.slots[slot] if wanted is not None else ():
                for number, key in enumerate(landed.keys):
                    if key not in told and landed.keys.shape(number) != wanted:
                        self.mismatch(relation.leaves[slot.branch], landed, number, wanted, f"by the rule '{rule}'")
                        told.add(key)
        if not told:
            keys = tuple(key for slot in slots for landed in relation.slots[slot] for key in landed.keys)
            self.problems.conflicts.append(Conflict(f"rule '{rule}'", reason, keys))


def _place(landed: Landed, number: int) -> str:
    stack = landed.stacks[number]
    return f"[{', '.join(map(str, stack))}]" if stack else ""


def _counts(relation: Relation) -> dict[str, int]:
    """How many of each bound index there are, by the keys."""
    found: dict[str, int] = {}
    for arrived in relation.slots.values():
        for landed in arrived:
            for names, rows in ((landed.sent.variables, landed.rows), (stack_names(relation.depth), landed.stacks)):
                for name, column in zip(names, rows.matrix.T, strict=False):
                    found[name] = max(found.get(name, 0), int(column.max()) + 1)
    return found
