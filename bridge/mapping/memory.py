"""`MemoryMap`: which memory holds which parts of which leaves, and the blocks that fill this memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bridge.mapping.arrays import Arrays, ArrayTable, Numbers, groups
from bridge.mapping.block import Block
from bridge.mapping.template import Spec

if TYPE_CHECKING:
    from bridge.mapping.shard import Grid


class _Columns(NamedTuple):
    """For each leaf of a table: with which others it is laid out alike, -1 where it is not held, and its place there.

    `layouts` says for each of these groups which boxes are held, and in which memory for each of its leaves.
    """

    kinds: Numbers
    places: Numbers
    layouts: list[list[tuple[Grid | None, Numbers]]]


class MemoryMap:
    """Arrays of memory, by name, each for a leaf as a whole, or for boxes of it side by side."""

    def __init__(self) -> None:
        self.specs: dict[str, Spec] = {}
        self._parts: dict[str, list[tuple[int, Grid | None]]] = {}

    def add(self, leaf: str, name: str, spec: Spec, grid: Grid | None = None) -> None:
        """Memory called `name`, of `spec`, for the boxes in `grid` of a leaf; `None` is all of it."""
        self._parts.setdefault(leaf, []).append((len(self.specs), grid))
        self.specs[name] = spec

    @cached_property
    def table(self) -> ArrayTable:
        """The memory as arrays by number. Nothing is added any more."""
        return ArrayTable.of(self.specs)

    def over(self, blocks: Iterable[Block]) -> list[Block]:
        """The blocks with memory for leaves; rows of leaves that are not held here are gone."""
        known: dict[int, _Columns] = {}
        found: list[Block] = []
        for block in blocks:
            table = block.leaves.table
            if id(table) not in known:
                known[id(table)] = self._columns(table)
            columns = known[id(table)]
            for kind, rows in groups(columns.kinds[block.leaves.numbers]):
                if kind < 0:
                    continue
                part = block if len(rows) == len(block) else block.at(rows)
                for grid, memory in columns.layouts[kind]:
                    for cut in _cut(part, grid):
                        numbers = memory[columns.places[cut.leaves.numbers]]
                        found.append(replace(cut, leaves=Arrays(self.table, numbers)))
        return found

    def _columns(self, table: ArrayTable) -> _Columns:
        kinds, places = np.full(len(table), -1), np.zeros(len(table), np.intp)
        known: dict[tuple[Grid | None, ...], int] = {}
        members: list[list[list[int]]] = []
        numbers = table.numbers
        for leaf, parts in self._parts.items():
            number = numbers.get(leaf)
            if number is None:
                continue
            kind = known.setdefault(tuple([grid for _, grid in parts]), len(known))
            if kind == len(members):
                members.append([])
            kinds[number], places[number] = kind, len(members[kind])
            members[kind].append([memory for memory, _ in parts])
        layouts = [
            list(zip(grids, np.array(found, np.intp).T, strict=True))
            for grids, found in zip(known, members, strict=True)
        ]
        return _Columns(kinds, places, layouts)


def _cut(block: Block, grid: Grid | None) -> Iterator[Block]:
    if grid is None:
        yield block
        return
    from bridge.mapping.shard import shard  # most loads take leaves whole

    yield from shard(block, grid) or []


def filled(blocks: Iterable[Block]) -> list[str]:
    """The leaves that blocks fill, each once, in the order of the blocks."""
    found: dict[str, None] = {}
    for block in blocks:
        numbers = block.leaves.numbers
        if len(numbers) > 1 and numbers[0] == numbers[-1] and (numbers == numbers[0]).all():
            numbers = numbers[:1]
        found |= dict.fromkeys(Arrays(block.leaves.table, numbers))
    return list(found)
