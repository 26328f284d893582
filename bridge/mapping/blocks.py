"""From relations to blocks: shapes are proven, every key gets its place, and what does not fit is reported."""

from __future__ import annotations

from collections.abc import Mapping

from bridge.mapping.block import Block, Term
from bridge.mapping.indexmap import Shape
from bridge.mapping.lower import Family, lower, stacked
from bridge.mapping.problem import Conflict, Mismatched, Missing, Problems, Unexpected
from bridge.mapping.relate import Arrival, Relation, Slot, stack_names
from bridge.mapping.respell import respell
from bridge.mapping.solve import Layout, Place, ShapeConflict, expected, solve
from bridge.mapping.template import Spec

Entry = tuple[str, Shape]


class Prover:
    """Makes blocks of relations. `leaves` is `None` where there is no model: leaves are then what the keys make them."""

    def __init__(self, shapes: Mapping[str, Shape], leaves: Mapping[str, Spec] | None, problems: Problems) -> None:
        self.shapes, self.leaves, self.problems = shapes, leaves, problems
        self.derived: dict[str, Shape] = {}
        self.solved: dict[object, dict[Place, Family]] = {}

    def blocks(self, relation: Relation) -> list[Block]:
        """The blocks of one relation, one for each of its leaves that keys arrive at."""
        if not self.all_terms(relation):
            return []
        leaf_shapes = self.leaf_shapes(relation)
        families = self.families(relation, leaf_shapes)
        rules = tuple(respell(relation))
        blocks: list[Block] = []
        for branch in sorted({slot.branch for slot in relation.slots}):
            slots = sorted(slot for slot in relation.slots if slot.branch == branch)
            filled = [self.placed(relation, slot, families.get((slot.side, branch), {})) for slot in slots]
            block = self.block(relation, relation.leaves[branch], filled, rules[min(len(blocks), len(rules) - 1)])
            if block is not None:
                blocks.append(block)
        return blocks

    def all_terms(self, relation: Relation) -> bool:
        """Whether every term of a sum has a key; reports the leaf where one has none."""
        sides = {slot.side for slot in relation.slots}
        if relation.rule is None or len(sides) == len(relation.rule.keys):
            return True
        slot = next(iter(relation.slots))
        here = relation.slots[slot][0].key
        absent = next(n for n in range(len(relation.rule.keys)) if n not in sides)
        tail, other = (str(relation.rule.keys[n].name) for n in (slot.side, absent))
        key = here.removesuffix(tail) + other if here.endswith(tail) else other
        self.problems.missing.append(Missing(relation.leaves[slot.branch], key))
        return False

    def leaf_shapes(self, relation: Relation) -> dict[int, Shape]:
        """The shapes of the relation's leaves, by branch, where a model says them."""
        if self.leaves is None:
            return {}
        return {branch: self.leaves[name].shape for branch, name in relation.leaves.items()}

    def families(self, relation: Relation, leaf_shapes: dict[int, Shape]) -> dict[Place, dict[Shape, Family]]:
        """For each side and branch that keys arrive at, the maps by key shape. Reports what does not fit."""
        if relation.layout is None:
            return {(slot.side, slot.branch): self.plain(relation, slot, leaf_shapes) for slot in relation.slots}
        layout, leaf_side = relation.layout, len(relation.layout.sides) - 1
        if self.leaves is None:
            layout = Layout(layout.sides, layout.pairing, {**self.counts(relation), **layout.sizes})
        shapes: dict[Place, Shape] = {(leaf_side, branch): shape for branch, shape in leaf_shapes.items()}
        slots = {(slot.side, slot.branch): slot for slot in reversed(relation.slots)}
        for place, slot in slots.items():
            shapes[place] = self.shapes[relation.slots[slot][0].key]
        for place, slot in slots.items():
            shapes[place] = self.agreed(relation, layout, shapes, place, slot)
        try:
            found = self.solve(relation, layout, shapes, leaf_side, list(slots))
        except ShapeConflict as conflict:
            self.conflict(relation, layout, shapes, slots, str(conflict))
            return {}
        return {place: {shapes[place]: family} for place, family in found.items()}

    def plain(self, relation: Relation, slot: Slot, leaf_shapes: dict[int, Shape]) -> dict[Shape, Family]:
        """The maps of a relation without axes."""
        families: dict[Shape, Family] = {}
        leaf = relation.leaves[slot.branch]
        for key, stack, _ in relation.slots[slot]:
            shape = self.shapes[key]
            if shape in families:
                continue
            try:
                leaf_shape = leaf_shapes.get(slot.branch)
                if leaf_shape is None:
                    lead = tuple(map(max, zip(*(a.stack for a in relation.slots[slot]), strict=True))) if stack else ()
                    leaf_shape = self.derived.setdefault(leaf, (*(n + 1 for n in lead), *shape))
                families[shape] = stacked(shape, leaf_shape, stack_names(relation.depth))
            except ShapeConflict:
                leaf_shape = leaf_shapes.get(slot.branch) or self.derived[leaf]
                inner = leaf_shape[relation.depth :] if len(leaf_shape) >= relation.depth else None
                for arrival in relation.slots[slot]:
                    if self.shapes[arrival.key] == shape:
                        label = indexed(leaf, arrival.stack)
                        self.problems.mismatched.append(Mismatched(label, arrival.key, inner, shape))
        return families

    def agreed(self, relation: Relation, layout: Layout, shapes: dict[Place, Shape], place: Place, slot: Slot) -> Shape:
        """The one shape that the keys of a slot must have; reports those that have another."""
        found = dict.fromkeys(self.shapes[arrival.key] for arrival in relation.slots[slot])
        if len(found) == 1:
            return shapes[place]
        wanted = expected(layout, shapes, place)
        wanted = wanted if wanted in found else next(iter(found))
        for arrival in relation.slots[slot]:
            got = self.shapes[arrival.key]
            if got != wanted:
                label = indexed(relation.leaves[slot.branch], arrival.stack)
                self.problems.mismatched.append(Mismatched(label, arrival.key, wanted, got))
        return wanted

    def counts(self, relation: Relation) -> dict[str, int]:
        """How many of each bound index there are, by the keys."""
        counts: dict[str, int] = {}
        for arrivals in relation.slots.values():
            for _, stack, values in arrivals:
                for name, value in (*values.items(), *zip(stack_names(relation.depth), stack, strict=True)):
                    counts[name] = max(counts.get(name, 0), value + 1)
        return counts

    def solve(
        self, relation: Relation, layout: Layout, shapes: dict[Place, Shape], leaf_side: int, places: list[Place]
    ) -> dict[Place, Family]:
        """The families of a relation with axes. Equal rules with equal shapes are solved once."""
        key = (id(relation.rule), relation.depth, tuple(sorted(layout.sizes.items())), tuple(sorted(shapes.items())))
        if key in self.solved and self.leaves is not None:
            return self.solved[key]
        extents, rests = solve(layout, shapes)
        if unsolved := extents.unsolved():
            shown = ", ".join(f"{name}=…" for name in unsolved)
            raise ShapeConflict(f"the shapes do not say how wide {' and '.join(map(repr, unsolved))} is: add '; {shown}'")
        families: dict[Place, Family] = {}
        for place in places:
            leaf_shape = shapes.get((leaf_side, place[1])) or extents.shape((leaf_side, place[1]), rests.get(place[1]))
            assert leaf_shape is not None
            self.derived[relation.leaves[place[1]]] = leaf_shape
            pair = (shapes[place], leaf_shape)
            families[place] = lower(layout, extents, place, pair, relation.variables, relation.flip)
        self.solved[key] = families
        return families

    def conflict(
        self, relation: Relation, layout: Layout, shapes: dict[Place, Shape], slots: dict[Place, Slot], reason: str
    ) -> None:
        """Report a relation whose shapes do not fit: the keys whose shape is not what the others make it."""
        rule = next(iter(respell(relation)), "")
        told = False
        for place, slot in slots.items():
            wanted = expected(layout, shapes, place)
            if wanted is None or wanted == shapes[place]:
                continue
            told = True
            for arrival in relation.slots[slot]:
                label = indexed(relation.leaves[slot.branch], arrival.stack)
                problem = Mismatched(label, arrival.key, wanted, self.shapes[arrival.key], f"by the rule '{rule}'")
                self.problems.mismatched.append(problem)
        if not told:
            keys = tuple(arrival.key for slot in slots.values() for arrival in relation.slots[slot])
            self.problems.conflicts.append(Conflict(f"rule '{rule}'", reason, keys))

    def placed(self, relation: Relation, slot: Slot, families: Mapping[Shape, Family]) -> dict[Shape, tuple[Arrival, Family, Shape]]:
        """For each place of the leaf that a slot fills: the key, its map and where that starts in the tensor."""
        found: dict[Shape, tuple[Arrival, Family, Shape]] = {}
        leaf = relation.leaves[slot.branch]
        for arrival in relation.slots[slot]:
            family = families.get(self.shapes[arrival.key])
            if family is None:
                continue
            try:
                key_start, leaf_start = starts(family, arrival)
            except ShapeConflict as conflict:
                self.problems.unexpected.append(Unexpected(arrival.key, f"'{leaf}': {conflict}"))
                continue
            if leaf_start in found:
                other = found[leaf_start][0].key
                text = f"both '{other}' and '{arrival.key}' fill it"
                self.problems.conflicts.append(Conflict(indexed(leaf, arrival.stack), text, (other, arrival.key)))
            found[leaf_start] = (arrival, family, key_start)
        return found

    def block(
        self, relation: Relation, leaf: str, filled: list[dict[Shape, tuple[Arrival, Family, Shape]]], rule: str
    ) -> Block | None:
        """One leaf's block; places that a term of a sum leaves empty are reported."""
        everywhere = dict.fromkeys(start for places in filled for start in places)
        whole = [start for start in everywhere if all(start in places for places in filled)]
        expected_terms = len(relation.rule.keys) if relation.rule else 1
        for start in everywhere:
            if start not in whole or len(filled) < expected_terms:
                arrival = next(places[start][0] for places in filled if start in places)
                text = f"'{arrival.key}' is one term of a sum, the other is missing"
                self.problems.conflicts.append(Conflict(indexed(leaf, arrival.stack), text, (arrival.key,)))
        if not whole or len(filled) < expected_terms:
            return None
        terms = tuple(
            Term(
                places[whole[0]][1].index_map,
                tuple(places[start][0].key for start in whole),
                tuple(places[start][2] for start in whole),
            )
            for places in filled
        )
        return Block(leaf, terms, tuple(whole), rule, relation.scale, relation.add, relation.tie, relation.copy)


def starts(family: Family, arrival: Arrival) -> tuple[Shape, Shape]:
    """Where a key's map starts in tensor and leaf. **Raises:** `ShapeConflict` for an index out of range."""
    if not family.bound:
        return family.index_map.key_start, family.index_map.leaf_start
    values = {**arrival.values, **dict(zip(stack_names(len(arrival.stack)), arrival.stack, strict=True))}
    return family.starts(values)


def indexed(leaf: str, stack: Shape) -> str:
    """A leaf's name with the indices of one of its places: `layers.weight[7]`."""
    return leaf + "".join(f"[{n}]" for n in stack)
