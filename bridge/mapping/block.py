"""`Block`: many tensors that go to many leaves by one index map; and `MemoryMap`: which memory holds which leaves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from bridge.mapping.arrays import Arrays, ArrayTable, Numbers, groups
from bridge.mapping.indexmap import IndexMap
from bridge.mapping.template import Spec

if TYPE_CHECKING:
    import numpy.typing as npt

    from bridge.mapping.shard import BoxGrid

Matrix: TypeAlias = "npt.NDArray[np.int64]"


class Term:
    """The key of each row of a block. Row `i` of `starts`, of shape `(rows, axes of the tensor)`, is where the map
    starts in the tensor of `keys[i]`.
    """

    __slots__ = ("index_map", "keys", "starts")

    def __init__(self, index_map: IndexMap, keys: Arrays, starts: Matrix) -> None:
        self.index_map, self.keys, self.starts = index_map, keys, starts

    def at(self, rows: Numbers) -> Term:
        """Some rows."""
        return Term(self.index_map, self.keys.at(rows), self.starts[rows])

    def map(self, row: int, leaf_starts: Matrix) -> IndexMap:
        """The map that applies to the key of one row; `leaf_starts` are the block's."""
        one = self.index_map
        start, leaf_start = tuple(self.starts[row].tolist()), tuple(leaf_starts[row].tolist())
        return IndexMap(one.key_shape, one.leaf_shape, start, leaf_start, one.loops)


class Block:
    """Rows of tensors and the places of leaves that they fill.

    Row `i` fills the box of `leaves[i]` that starts at `starts[i]` (`starts` has shape `(rows, axes of the leaf)`) with
    `sum(terms[...].keys[i]) * scale + add`. All rows have one map for each term, so their tensors have one shape and
    their leaves have one shape; dtypes may differ from row to row. All terms cover the same boxes. A leaf may stand in
    many rows (a stack of layers), and many leaves in one block (a list of layers).
    """

    __slots__ = ("add", "copy", "leaves", "scale", "starts", "terms", "tie")

    def __init__(
        self,
        leaves: Arrays,
        terms: tuple[Term, ...],
        starts: Matrix,
        scale: float | int = 1,
        add: float | int = 0,
        tie: bool = False,
        copy: bool = False,
    ) -> None:
        self.leaves, self.terms, self.starts = leaves, terms, starts
        self.scale, self.add, self.tie, self.copy = scale, add, tie, copy

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def changes_values(self) -> bool:
        """Whether values change, so that the bits of the leaf are not those of the tensors."""
        return len(self.terms) > 1 or self.scale != 1 or self.add != 0

    @property
    def needs_whole(self) -> bool:
        """Whether leaves are made whole: a sum whose terms run in different orders has no common parts."""
        return any(term.index_map.loops != self.terms[0].index_map.loops for term in self.terms[1:])

    def at(self, rows: Numbers) -> Block:
        """Some rows."""
        terms = tuple([term.at(rows) for term in self.terms])
        return self.over(self.leaves.at(rows), terms, self.starts[rows])

    def over(self, leaves: Arrays, terms: tuple[Term, ...], starts: Matrix) -> Block:
        """The same for other rows."""
        return Block(leaves, terms, starts, self.scale, self.add, self.tie, self.copy)

    def maps(self, row: int) -> Iterator[tuple[str, IndexMap]]:
        """The keys of one row, each with the map that applies to it there."""
        for term in self.terms:
            yield term.keys[row], term.map(row, self.starts)


class _LeafGroups:
    """For each leaf of a table: with which others it is laid out alike, -1 where it is not held, and its place there.

    `layouts` says for each of these groups which boxes are held, and in which memory for each of its leaves.
    """

    __slots__ = ("kinds", "layouts", "places")

    def __init__(self, kinds: Numbers, places: Numbers, layouts: list[list[tuple[BoxGrid | None, Numbers]]]) -> None:
        self.kinds, self.places, self.layouts = kinds, places, layouts


class MemoryMap:
    """Arrays of memory, by name, each for a leaf as a whole, or for boxes of it side by side."""

    def __init__(self) -> None:
        self.specs: dict[str, Spec] = {}
        self._parts: dict[str, list[tuple[int, BoxGrid | None]]] = {}

    def add(self, leaf: str, name: str, spec: Spec, grid: BoxGrid | None = None) -> None:
        """Memory called `name`, of `spec`, for the boxes in `grid` of a leaf; `None` is all of it."""
        self._parts.setdefault(leaf, []).append((len(self.specs), grid))
        self.specs[name] = spec

    @cached_property
    def table(self) -> ArrayTable:
        """The memory as arrays by number. Nothing is added any more."""
        return ArrayTable.of(self.specs)

    def over(self, blocks: Iterable[Block]) -> list[Block]:
        """The blocks with memory for leaves; rows of leaves that are not held here are gone."""
        known: dict[int, _LeafGroups] = {}
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
                        found.append(cut.over(Arrays(self.table, numbers), cut.terms, cut.starts))
        return found

    def _columns(self, table: ArrayTable) -> _LeafGroups:
        kinds, places = np.full(len(table), -1), np.zeros(len(table), np.intp)
        known: dict[tuple[BoxGrid | None, ...], int] = {}
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
        return _LeafGroups(kinds, places, layouts)


def _cut(block: Block, grid: BoxGrid | None) -> Iterator[Block]:
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
