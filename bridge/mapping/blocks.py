"""From relations to blocks: every key gets its place, and what does not fit is reported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bridge._text import fold, quote
from bridge._values import NamedTuple
from bridge.mapping.arrays import Arrays, ArrayTable
from bridge.mapping.block import Block, Term
from bridge.mapping.cover import repeated
from bridge.mapping.families import Families, Shaped
from bridge.mapping.indexmap import Shape
from bridge.mapping.keys import Keys, Numbers
from bridge.mapping.land import Landed
from bridge.mapping.lower import Family, stacked
from bridge.mapping.places import Places
from bridge.mapping.problem import Conflict, Missing, Problems, Unexpected
from bridge.mapping.relate import Relation, Slot
from bridge.mapping.template import Spec


class Filling(NamedTuple):
    """Keys that one map brings to places of a leaf; `places` are theirs in `landed`.

    `starts` are where the map starts in their tensors, `leaf_starts` where in the leaf.
    """

    landed: Landed
    family: Family
    places: Numbers
    starts: Places
    leaf_starts: Places

    @property
    def keys(self) -> Keys:
        """The keys."""
        return self.landed.keys if len(self.places) == len(self.landed.keys) else self.landed.keys.at(self.places)

    def at(self, kept: Numbers) -> Filling:
        """Some of them."""
        return self._replace(
            places=self.places[kept], starts=self.starts.at(kept), leaf_starts=self.leaf_starts.at(kept)
        )


class Prover:
    """Makes blocks of relations. `leaves` is `None` where there is no model: leaves are then what the keys make them.

    `alone` are keys whose sum lacks another.
    """

    def __init__(self, leaves: Mapping[str, Spec] | None, problems: Problems) -> None:
        self.leaves, self.problems = leaves, problems
        self.families = Families(leaves, problems)
        self.behind: dict[object, tuple[Relation, Sequence[Slot], Sequence[Landed]]] = {}
        self.alone: set[str] = set()
        self._leaves = ArrayTable.of({} if leaves is None else leaves)
        self._numbers = {} if leaves is None else self._leaves.numbers

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
        shape = landed.keys.shape(0)
        if self.leaves is None:
            self.families.derive(leaf, shape)
        elif self.leaves[leaf].shape != shape:
            return None
        index_map = stacked(shape, shape, ()).index_map
        term = Term(index_map, landed.keys, Places((index_map.key_start,)).matrix)
        self.said(relation, [slot], [landed])
        flags = relation.scale, relation.add, relation.tie, relation.copy
        return Block(self.arrays(leaf, 1), (term,), Places((index_map.leaf_start,)).matrix, *flags)

    def arrays(self, leaf: str, count: int) -> Arrays:
        """`count` times one leaf; where there is no model, leaves are numbered as they come."""
        if leaf not in self._numbers:
            self._numbers[leaf] = len(self._numbers)
        return Arrays(self._leaves, np.full(count, self._numbers[leaf], np.intp))

    def finish(self) -> None:
        """Give the leaves that keys made their shapes; their dtypes are settled later."""
        if self.leaves is None:
            specs = {leaf: Spec(np.dtype(np.float32), self.families.derived[leaf]) for leaf in self._numbers}
            made = ArrayTable.of(specs)
            self._leaves.names, self._leaves.kinds, self._leaves.specs = made.names, made.kinds, made.specs

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
            row = landed.rows[list(landed.keys).index(here)]
            from bridge.mapping.respell import spelled

            return spelled(other, dict(zip(landed.sent.variables, row, strict=False)))
        assert relation.rule is not None
        ends = [str(side.name) for side in relation.rule.keys]
        tail, other = ends[slots[0].side], next(n for s, n in enumerate(ends) if s not in {x.side for x in slots})
        return here.removesuffix(tail) + other if here.endswith(tail) else other

    def filled(self, relation: Relation, slot: Slot, families: Shaped) -> list[Filling]:
        """What a slot fills of its leaf, each place once."""
        leaf = relation.leaves[slot.branch]
        found: list[Filling] = []
        for landed in relation.slots[slot]:
            for family, places in self.by_family(landed, families):
                whole = len(places) == len(landed.keys)
                rows, stacks = (x if whole else x.at(places) for x in (landed.rows, landed.stacks))
                starts = family.places(landed.sent.variables, rows, stacks)
                filling = Filling(landed, family, places, starts.keys, starts.leaf)
                if not starts.inside.all():
                    reason = f"{quote(leaf)} has no place for it: its shape is {family.index_map.leaf_shape}"
                    outside = filling.at(np.flatnonzero(~starts.inside)).keys
                    self.problems.unexpected += [Unexpected(key, reason) for key in outside]
                    filling = filling.at(np.flatnonzero(starts.inside))
                found.append(filling)
        return self.once(leaf, found) if repeated([filling.leaf_starts.matrix for filling in found]) else found

    def once(self, leaf: str, found: Sequence[Filling]) -> list[Filling]:
        """Report places that are filled twice; the last one counts."""
        first: dict[Shape, str] = {}
        twice: dict[str, str] = {}
        last: dict[Shape, tuple[int, int]] = {}
        for number, filling in enumerate(found):
            for place, (start, key) in enumerate(zip(filling.leaf_starts, filling.keys, strict=True)):
                if start in first:
                    twice[key] = first[start]
                first[start] = key
                last[start] = number, place
        one, other = (" and ".join(quote(name) for name, _ in fold(names)) for names in (twice.values(), twice))
        text = f"filled by {one} and by {other}: drop one of them on purpose, with '-> _'"
        self.problems.conflicts.append(Conflict(leaf, text, (*twice, *twice.values())))
        kept = [sorted(place for n, place in last.values() if n == number) for number in range(len(found))]
        return [filling.at(np.array(places, np.intp)) for filling, places in zip(found, kept, strict=True) if places]

    def by_family(self, landed: Landed, families: Shaped) -> list[tuple[Family, Numbers]]:
        """The keys of `landed`, by place, that have each shape for which there is a map."""
        by_shape = landed.keys.by_shape().items()
        return [(families[shape], places) for shape, places in by_shape if shape in families]

    def joined(self, relation: Relation, slots: Sequence[Slot], filled: Sequence[Sequence[Filling]]) -> list[Block]:
        """One leaf's blocks; places that a term of a sum leaves empty are reported."""
        leaf = relation.leaves[slots[0].branch]
        if len(filled) == 1:
            return [self.block(relation, leaf, slots, [filling]) for filling in filled[0] if len(filling.places)]
        by_start = [
            {start: (n, place) for n, f in enumerate(fillings) for place, start in enumerate(f.leaf_starts)}
            for fillings in filled
        ]
        groups: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
        for start in dict.fromkeys(start for places in by_start for start in places):
            there = [start in places for places in by_start]
            if all(there):
                numbers, places = zip(*(found[start] for found in by_start), strict=True)
                groups.setdefault(numbers, []).append(places)
            else:
                term = there.index(True)
                number, place = by_start[term][start]
                self.incomplete(relation, slots, there, filled[term][number], place)
        return [
            self.block(
                relation,
                leaf,
                slots,
                [
                    filled[term][number].at(np.array(places, np.intp))
                    for term, (number, places) in enumerate(zip(numbers, zip(*rows, strict=True), strict=True))
                ],
            )
            for numbers, rows in groups.items()
        ]

    def incomplete(
        self, relation: Relation, slots: Sequence[Slot], there: Sequence[bool], filling: Filling, place: int
    ) -> None:
        """Report a place of a leaf where a term of a sum is missing."""
        present = [slot for slot, is_there in zip(slots, there, strict=True) if is_there]
        key, stack = filling.keys[place], filling.landed.stacks[int(filling.places[place])]
        shown = f"[{', '.join(map(str, stack))}]" if stack else ""
        absent = self.absent(relation, present, key)
        self.problems.missing.append(Missing(relation.leaves[slots[0].branch], absent, shown))
        self.alone.add(key)

    def block(self, relation: Relation, leaf: str, slots: Sequence[Slot], terms: Sequence[Filling]) -> Block:
        """The places of one leaf that one rule fills; each term fills the same places in the same order."""
        made = tuple([Term(filling.family.index_map, filling.keys, filling.starts.matrix) for filling in terms])
        self.said(relation, slots, [filling.landed for filling in terms])
        starts = terms[0].leaf_starts.matrix
        flags = relation.scale, relation.add, relation.tie, relation.copy
        return Block(self.arrays(leaf, len(starts)), made, starts, *flags)

    def said(self, relation: Relation, slots: Sequence[Slot], arrived: Sequence[Landed]) -> None:
        """Remember the rule behind a block. Leaves that differ only in indices share it."""
        one, real = arrived[0], relation.leaves[slots[0].branch]
        same = one.name == real or (relation.rule is not None and relation.rule is not one.sent.rule)
        sents = one.sent if len(arrived) == 1 else tuple([landed.sent for landed in arrived])
        key = (sents, *slots, relation.rule, relation.tie, None if same else one.name)
        self.behind.setdefault(key, (relation, slots, arrived))

    def rules(self) -> dict[str, int]:
        """The texts of the rules that the blocks came from, each with the number of the user's rule behind it."""
        from bridge.mapping.respell import respell  # a load asks for no texts

        found: dict[str, int] = {}
        for relation, slots, arrived in self.behind.values():
            found.setdefault(respell(relation, slots, arrived), arrived[0].sent.number)
        return found
