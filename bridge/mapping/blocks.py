"""From relations to blocks: shapes are proven, every key gets its place, and what does not fit is reported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from bridge._text import fold, quote
from bridge.mapping.block import Block, Term
from bridge.mapping.indexmap import Shape
from bridge.mapping.land import Landed
from bridge.mapping.lower import Family, lower, stacked
from bridge.mapping.problem import Conflict, Mismatched, Missing, Problems, Unexpected
from bridge.mapping.relate import Relation, Slot
from bridge.mapping.respell import respell
from bridge.mapping.solve import Layout, Place, ShapeConflict, expected, solve, stack_names
from bridge.mapping.template import Spec

Shaped = dict[Shape, Family]
"""The maps of one slot, by the shape of the key."""


class Filling(NamedTuple):
    """A key at one place of a leaf: where its map starts in the tensor."""

    key: str
    start: Shape
    family: Family
    landed: Landed


class Prover:
    """Makes blocks of relations. `leaves` is `None` where there is no model: leaves are then what the keys make them.

    `rules` are the texts of the rules that the blocks came from, each with the number of the user's rule behind it.
    """

    def __init__(self, shapes: Mapping[str, Shape], leaves: Mapping[str, Spec] | None, problems: Problems) -> None:
        self.shapes, self.leaves, self.problems = shapes, leaves, problems
        self.derived: dict[str, Shape] = {}
        self.rules: dict[str, int] = {}
        self.solved: dict[object, dict[Place, Family]] = {}
        self.texts: dict[object, str] = {}

    def blocks(self, relation: Relation) -> list[Block]:
        """The blocks of one relation: one for each of its leaves and each rule that sent keys there."""
        if relation.layout is None and relation.terms == 1 and (block := self.single(relation)):
            return [block]
        if not self.all_terms(relation):
            return []
        families = self.families(relation)
        blocks: list[Block] = []
        for branch in sorted({slot.branch for slot in relation.slots}):
            slots = sorted(slot for slot in relation.slots if slot.branch == branch)
            filled = [self.filled(relation, slot, families.get((slot.side, branch), {})) for slot in slots]
            blocks += self.joined(relation, slots, filled)
        return blocks

    def single(self, relation: Relation) -> Block | None:
        """The block of one key that fills one leaf whole, as most do where layers are lists; `None` for all others."""
        slot, (landed, *others) = next(iter(relation.slots.items()))
        leaf = relation.leaves[slot.branch]
        if others or len(landed.keys) > 1 or relation.depth or len(relation.slots) > 1:
            return None
        shape = self.shapes[landed.keys[0]]
        if self.leaves is None:
            self.derived[leaf] = shape
        elif self.leaves[leaf].shape != shape:
            return None
        index_map = stacked(shape, shape, ()).index_map
        term = Term(index_map, (landed.keys[0],), (index_map.key_start,))
        rule = self.text(relation, [slot], [landed])
        flags = relation.scale, relation.add, relation.tie, relation.copy
        return Block(leaf, (term,), (index_map.leaf_start,), rule, *flags)

    def all_terms(self, relation: Relation) -> bool:
        """Whether every term of a sum has a key; reports the leaves where one has none."""
        if relation.terms == 1:
            return True
        whole = True
        for branch, leaf in relation.leaves.items():
            slots = [slot for slot in relation.slots if slot.branch == branch]
            if slots and len(slots) < relation.terms:
                self.problems.missing.append(Missing(leaf, self.absent(relation, slots)))
                whole = False
        return whole

    def absent(self, relation: Relation, slots: Sequence[Slot]) -> str:
        """The key of the term that a sum lacks, as far as its rule says."""
        landed = relation.slots[slots[0]][0]
        summed = landed.sent.rule.keys
        if len(summed) > 1:
            there = {slot.term if relation.rule is not landed.sent.rule else slot.side for slot in slots}
            return str(next(key.name for n, key in enumerate(summed) if n not in there))
        assert relation.rule is not None
        names = [str(key.name) for key in relation.rule.keys]
        here = landed.keys[0]
        tail, other = names[slots[0].side], next(n for s, n in enumerate(names) if s not in {x.side for x in slots})
        return here.removesuffix(tail) + other if here.endswith(tail) else other

    # Shapes

    def families(self, relation: Relation) -> dict[Place, Shaped]:
        """For each side and branch that keys arrive at, the maps by key shape. Reports what does not fit."""
        if relation.layout is None:
            return {(slot.side, slot.branch): self.plain(relation, slot) for slot in relation.slots}
        layout = relation.layout
        if self.leaves is None:
            layout = Layout(layout.sides, layout.pairing, {**counts(relation), **layout.sizes})
        slots = {(slot.side, slot.branch): slot for slot in reversed(relation.slots)}
        shapes: dict[Place, Shape] = {}
        if self.leaves is not None:
            leaf_side = len(layout.sides) - 1
            shapes = {(leaf_side, branch): self.leaves[name].shape for branch, name in relation.leaves.items()}
        shapes |= {place: self.shapes[relation.slots[slot][0].keys[0]] for place, slot in slots.items()}
        for place, slot in slots.items():
            shapes[place] = self.agreed(relation, layout, shapes, place, slot)
        try:
            found = self.solve(relation, layout, shapes, list(slots))
        except ShapeConflict as conflict:
            self.conflict(relation, layout, shapes, slots, str(conflict))
            return {}
        return {place: {shapes[place]: family} for place, family in found.items()}

    def plain(self, relation: Relation, slot: Slot) -> Shaped:
        """The maps of a relation without axes."""
        families: Shaped = {}
        leaf, names = relation.leaves[slot.branch], stack_names(relation.depth)
        for landed in relation.slots[slot]:
            for number, shape in enumerate(map(self.shapes.__getitem__, landed.keys)):
                if shape in families:
                    continue
                leaf_shape = self.leaf_shape(relation, slot, shape)
                try:
                    families[shape] = stacked(shape, leaf_shape, names)
                except ShapeConflict:
                    wanted = leaf_shape[relation.depth :] if len(leaf_shape) >= relation.depth else None
                    self.mismatch(leaf, landed, number, wanted)
        return families

    def leaf_shape(self, relation: Relation, slot: Slot, shape: Shape) -> Shape:
        """The shape of a leaf, or the one that the keys give it."""
        leaf = relation.leaves[slot.branch]
        if self.leaves is not None:
            return self.leaves[leaf].shape
        if leaf not in self.derived:
            stacks = [stack for landed in relation.slots[slot] for stack in landed.stacks]
            lead = tuple(n + 1 for n in map(max, zip(*stacks, strict=True))) if relation.depth else ()
            self.derived[leaf] = (*lead, *shape)
        return self.derived[leaf]

    def agreed(self, relation: Relation, layout: Layout, shapes: dict[Place, Shape], place: Place, slot: Slot) -> Shape:
        """The one shape that the keys of a slot must have; reports those that have another."""
        found = dict.fromkeys(self.shapes[key] for landed in relation.slots[slot] for key in landed.keys)
        if len(found) == 1:
            return shapes[place]
        wanted = expected(layout, shapes, place)
        wanted = wanted if wanted in found else next(iter(found))
        for landed in relation.slots[slot]:
            for number, key in enumerate(landed.keys):
                if self.shapes[key] != wanted:
                    self.mismatch(relation.leaves[slot.branch], landed, number, wanted)
        return wanted

    def mismatch(self, leaf: str, landed: Landed, number: int, wanted: Shape | None, reason: str = "") -> None:
        """Report the shape of one key."""
        key = landed.keys[number]
        label = indexed(leaf, landed.stacks[number])
        self.problems.mismatched.append(Mismatched(label, key, wanted, self.shapes[key], reason))

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
            self.derived[relation.leaves[place[1]]] = leaf_shape
            pair = (shapes[place], leaf_shape)
            families[place] = lower(layout, extents, place, pair, relation.variables, relation.flip)
        self.solved[key] = families
        return families

    def conflict(
        self,
        relation: Relation,
        layout: Layout,
        shapes: dict[Place, Shape],
        slots: dict[Place, Slot],
        reason: str,
    ) -> None:
        """Report a relation whose shapes do not fit: the keys whose shape is not what the others make it."""
        slot = next(iter(slots.values()))
        rule = respell(relation, [slot], [relation.slots[slot][0]]) if relation.terms == 1 else str(relation.rule)
        told = False
        for place, slot in slots.items():
            wanted = expected(layout, shapes, place)
            if wanted is None or wanted == shapes[place]:
                continue
            told = True
            for landed in relation.slots[slot]:
                for number in range(len(landed.keys)):
                    self.mismatch(relation.leaves[slot.branch], landed, number, wanted, f"by the rule '{rule}'")
        if not told:
            keys = tuple(key for slot in slots.values() for landed in relation.slots[slot] for key in landed.keys)
            self.problems.conflicts.append(Conflict(f"rule '{rule}'", reason, keys))

    # Places

    def filled(self, relation: Relation, slot: Slot, families: Shaped) -> dict[Shape, Filling]:
        """For each place of the leaf that a slot fills: the key, its map and where that starts in the tensor."""
        found: dict[Shape, Filling] = {}
        leaf = relation.leaves[slot.branch]
        twice: dict[str, str] = {}
        for landed in relation.slots[slot]:
            for family, numbers in self.by_family(landed, families):
                keys = [landed.keys[n] for n in numbers]
                rows, stacks = [landed.rows[n] for n in numbers], [landed.stacks[n] for n in numbers]
                places = family.places(landed.sent.variables, rows, stacks)
                for key, place in zip(keys, places, strict=True):
                    if place is None:
                        reason = f"{quote(leaf)} has no place for its index"
                        self.problems.unexpected.append(Unexpected(key, reason))
                        continue
                    start, leaf_start = place
                    if leaf_start in found:
                        twice[key] = found[leaf_start].key
                    found[leaf_start] = Filling(key, start, family, landed)
        if twice:
            one, other = (" and ".join(quote(name) for name, _ in fold(names)) for names in (twice.values(), twice))
            text = f"filled by {one} and by {other}"
            self.problems.conflicts.append(Conflict(leaf, text, (*twice, *twice.values())))
        return found

    def by_family(self, landed: Landed, families: Shaped) -> list[tuple[Family, Sequence[int]]]:
        """The keys of `landed`, by number, that have each shape for which there is a map."""
        if len(families) == 1:
            shape, family = next(iter(families.items()))
            if all(self.shapes[key] == shape for key in landed.keys):
                return [(family, range(len(landed.keys)))]
        numbers: dict[Shape, list[int]] = {}
        for number, key in enumerate(landed.keys):
            numbers.setdefault(self.shapes[key], []).append(number)
        return [(families[shape], found) for shape, found in numbers.items() if shape in families]

    def joined(
        self, relation: Relation, slots: Sequence[Slot], filled: Sequence[Mapping[Shape, Filling]]
    ) -> list[Block]:
        """One leaf's blocks; places that a term of a sum leaves empty are reported."""
        leaf = relation.leaves[slots[0].branch]
        groups: dict[tuple[object, ...], list[tuple[Shape, tuple[Filling, ...]]]] = {}
        if len(filled) == 1:
            for start, filling in filled[0].items():
                groups.setdefault((filling.landed, filling.family), []).append((start, (filling,)))
        else:
            for start in dict.fromkeys(start for places in filled for start in places):
                fillings = tuple(places[start] for places in filled if start in places)
                if len(fillings) < len(filled):
                    text = f"{quote(fillings[0].key)} is one term of a sum, the other is missing"
                    self.problems.conflicts.append(Conflict(leaf, text, (fillings[0].key,)))
                else:
                    kinds = [(filling.landed, filling.family) for filling in fillings]
                    groups.setdefault(tuple(kinds), []).append((start, fillings))
        return [self.block(relation, leaf, slots, places) for places in groups.values()]

    def block(
        self, relation: Relation, leaf: str, slots: Sequence[Slot], places: Sequence[tuple[Shape, tuple[Filling, ...]]]
    ) -> Block:
        """The places of one leaf that one rule fills."""
        first = places[0][1]
        terms = tuple(
            Term(
                filling.family.index_map,
                tuple([fillings[n].key for _, fillings in places]),
                tuple([fillings[n].start for _, fillings in places]),
            )
            for n, filling in enumerate(first)
        )
        rule = self.text(relation, slots, [filling.landed for filling in first])
        starts = tuple([start for start, _ in places])
        return Block(leaf, terms, starts, rule, relation.scale, relation.add, relation.tie, relation.copy)

    def text(self, relation: Relation, slots: Sequence[Slot], arrived: Sequence[Landed]) -> str:
        """The rule behind a block. Leaves that differ only in indices share it."""
        one, real = arrived[0], relation.leaves[slots[0].branch]
        same = one.name == real or (relation.rule is not None and relation.rule is not one.sent.rule)
        sents = one.sent if len(arrived) == 1 else tuple([landed.sent for landed in arrived])
        key = (sents, *slots, relation.rule, relation.tie, None if same else one.name)
        found = self.texts.get(key)
        if found is None:
            found = self.texts[key] = respell(relation, slots, arrived)
            self.rules.setdefault(found, one.sent.number)
        return found


def counts(relation: Relation) -> dict[str, int]:
    """How many of each bound index there are, by the keys."""
    found: dict[str, int] = {}
    for arrived in relation.slots.values():
        for landed in arrived:
            for names, rows in ((landed.sent.variables, landed.rows), (stack_names(relation.depth), landed.stacks)):
                for name, column in zip(names, zip(*rows, strict=True), strict=False):
                    found[name] = max(found.get(name, 0), max(column) + 1)
    return found


def indexed(leaf: str, stack: Shape) -> str:
    """A leaf's name with the indices of one of its places: `layers.weight[7]`."""
    return f"{leaf}[{', '.join(map(str, stack))}]" if stack else leaf
