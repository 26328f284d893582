"""Whether two plans for the same keys and leaves move the same elements: by columns, without spelling a name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from bridge.mapping.arrays import ArrayTable
from bridge.mapping.block import Block, Matrix

if TYPE_CHECKING:
    from bridge.planning.plan import Plan


def moves_alike(one: Plan, other: Plan) -> bool:
    """As `one == other`, where both were made for the same keys and the same template, in the same order."""
    if one.kept != other.kept or one.dropped.keys() != other.dropped.keys() or one.consumed != other.consumed:
        return False
    return rows_alike(one.blocks, other.blocks)


def rows_alike(one: Iterable[Block], other: Iterable[Block]) -> bool:
    """Whether blocks whose keys and leaves are numbered alike have the same rows."""
    mine, theirs = _rows(one), _rows(other)
    return mine.keys() == theirs.keys() and all(np.array_equal(mine[kind], theirs[kind]) for kind in mine)


def numbered_alike(one: Iterable[Block], other: Iterable[Block]) -> bool:
    """Whether the numbers of keys and leaves mean the same in both."""
    mine, theirs = _tables(one), _tables(other)
    return len(mine) == len(theirs) == 2 and all(a is b or a.is_like(b) for a, b in zip(mine, theirs, strict=True))


def _tables(blocks: Iterable[Block]) -> list[ArrayTable]:
    """The tables of blocks, each once, that of the leaves first."""
    found: dict[int, ArrayTable] = {}
    for block in blocks:
        found[id(block.leaves.table)] = block.leaves.table
        found |= {id(term.keys.table): term.keys.table for term in block.terms}
    return list(found.values())


def _rows(blocks: Iterable[Block]) -> dict[object, Matrix]:
    """All rows of blocks, in an order of their own, by what is the same in all rows of a block."""
    found: dict[object, list[Matrix]] = {}
    for block in blocks:
        maps = [(term.index_map.key_shape, term.index_map.leaf_shape, term.index_map.loops) for term in block.terms]
        kind = (*maps, block.scale, block.add, block.tie, block.copy)
        columns = [block.leaves.numbers[:, None], block.starts]
        for term in block.terms:
            columns += [term.keys.numbers[:, None], term.starts]
        found.setdefault(kind, []).append(np.concatenate(columns, axis=1))
    return {kind: _sorted(np.concatenate(parts)) for kind, parts in found.items()}


def _sorted(rows: Matrix) -> Matrix:
    return rows[np.lexsort(rows.T[::-1])]
