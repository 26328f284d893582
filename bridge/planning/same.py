"""Whether two plans for the same keys and leaves move the same elements: by columns, without spelling a name."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from bridge.mapping.block import Block, Matrix
from bridge.planning.plan import Plan


def moves_alike(one: Plan, other: Plan) -> bool:
    """As `one == other`, where both were made for the same keys and the same template, in the same order."""
    if one.kept != other.kept or one.dropped.keys() != other.dropped.keys() or one.consumed != other.consumed:
        return False
    mine, theirs = _rows(one.blocks), _rows(other.blocks)
    return mine.keys() == theirs.keys() and all(np.array_equal(mine[kind], theirs[kind]) for kind in mine)


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
