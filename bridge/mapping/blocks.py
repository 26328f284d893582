"""From relations to blocks: every key gets its place, and what does not fit is reported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from bridge._text import fold, quote
from bridge.mapping.block import Block, Term
from bridge.mapping.families import Families, Shaped
from bridge.mapping.indexmap import Shape
from bridge.mapping.land import Landed
from bridge.mapping.lower import Family, stacked
from bridge.mapping.problem import Conflict, Missing, Problems, Unexpected
from bridge.mapping.relate import Relation, Slot
from bridge.mapping.respell import respell, spelled
from bridge.mapping.template import Spec


class Filling(NamedTuple):
    """A key at one place of a leaf: where its map starts in the tensor."""

    key: str
    start: Shape
    family: Family
    landed: Landed


class Prover:
    """Makes blocks of relations. `leaves` is `None` where there is no model: leaves are then what the keys make them.

    `rules` are the texts of the rules that the blocks came from, each with the number of the user's rule behind it;
    `alone` are keys whose sum lacks another.
    """

    def __init__(self, shapes: Mapping[str, Shape], leaves: Mapping[str, Spec] | None, problems: Problems) -> None:
        self.shapes, self.leaves, self.problems = shapes, leaves, problems
        self.families = Families(shapes, leaves, problems)
        self.rules: dict[str, int] = {}
        self.texts: dict[object, str] = {}
        self.alone: set[str] = set()

    def blocks(self, relation: Relation) -> list[Block]:
        """The blocks of one relation: one for each of its leaves and each rule that sent keys there."""
        if relation.layout is None and relation.terms == 1 and (block := self.single(relation)):
            return [block]
        if not self.all_terms(relation):
            return []
        families = self.families.of(relation)
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
            self.families.derive(leaf, shape)
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
                self.alone.update(key for slot in slots for landed in relation.slots[slot] for key in landed.keys)
                whole = False
        return whole

    def absent(self, relation: Relation, slots: Sequence[Slot], key: str | None = None) -> str:
        """The key of the term that a sum lacks beside `key`, as far as its rule says."""
        landed = relation.slots[slots[0]][0]
        here = landed.keys[0] if key is None else key
        if len(landed.sent.rule.keys) > 1:
            there = {slot.side if relation.rule is landed.sent.rule else slot.term for slot in slots}
            names = [side.name for side in landed.sent.rule.keys]
            other = next(name for n, name in enumerate(names) if n not in there)
            row = landed.rows[landed.keys.index(here)]
            return spelled(other, dict(zip(landed.sent.variables, row, strict=False)))
        assert relation.rule is not None
        ends = [str(side.name) for side in relation.rule.keys]
        tail, other = ends[slots[0].side], next(n for s, n in enumerate(ends) if s not in {x.side for x in slots})
        return here.removesuffix(tail) + other if here.endswith(tail) else other

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
                        reason = f"{quote(leaf)} has no place for it: its shape is {family.index_map.leaf_shape}"
                        self.problems.unexpected.append(Unexpected(key, reason))
                        continue
                    start, leaf_start = place
                    if leaf_start in found:
                        twice[key] = found[leaf_start].key
                    found[leaf_start] = Filling(key, start, family, landed)
        if twice:
            one, other = (" and ".join(quote(name) for name, _ in fold(names)) for names in (twice.values(), twice))
            text = f"filled by {one} and by {other}: drop one of them on purpose, with '-> _'"
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
                    self.incomplete(relation, slots, [start in places for places in filled], fillings[0])
                else:
                    kinds = [(filling.landed, filling.family) for filling in fillings]
                    groups.setdefault(tuple(kinds), []).append((start, fillings))
        return [self.block(relation, leaf, slots, places) for places in groups.values()]

    def incomplete(self, relation: Relation, slots: Sequence[Slot], there: Sequence[bool], filling: Filling) -> None:
        """Report a place of a leaf where a term of a sum is missing."""
        present = [slot for slot, is_there in zip(slots, there, strict=True) if is_there]
        stack = filling.landed.stacks[filling.landed.keys.index(filling.key)]
        place = f"[{', '.join(map(str, stack))}]" if stack else ""
        absent = self.absent(relation, present, filling.key)
        self.problems.missing.append(Missing(relation.leaves[slots[0].branch], absent, place))
        self.alone.add(filling.key)

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
