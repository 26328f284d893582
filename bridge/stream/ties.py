"""Ties whose two keys are the same bytes of a file: there is nothing to compare."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bridge.format.table import Table
from bridge.mapping.block import Block
from bridge.mapping.indexmap import IndexMap
from bridge.stream.jobs import located


def without_same_bytes(blocks: Sequence[Block], specs: Table) -> Sequence[Block]:
    """The blocks without the ties that compare a leaf with the very bytes that fill it."""
    ties = [block for block in blocks if block.tie and not block.changes_values]
    if not ties:
        return blocks
    tied = {leaf for block in ties for leaf in block.leaves}
    numbers = located(specs)
    filled: dict[tuple[str, IndexMap], tuple[int, int, int]] = {}
    for block in blocks:
        if not block.tie and not block.changes_values:
            places = _places(block, specs, numbers(block.terms[0].keys))
            for row, leaf in enumerate(block.leaves):
                if leaf in tied:
                    ((_, index_map),) = block.maps(row)
                    filled[leaf, index_map] = places[row]
    found: list[Block] = []
    for block in blocks:
        if block.tie and not block.changes_values:
            places = _places(block, specs, numbers(block.terms[0].keys))
            maps = [index_map for row in range(len(block)) for _, index_map in block.maps(row)]
            pairs = enumerate(zip(block.leaves, maps, strict=True))
            kept = [row for row, pair in pairs if filled.get(pair) != places[row]]
            if len(kept) < len(block):
                found += [block.at(np.array(kept, np.intp))] if kept else []
                continue
        found.append(block)
    return found


def _places(block: Block, specs: Table, numbers: np.ndarray) -> list[tuple[int, int, int]]:
    """Of each row the file, the first byte and the form of its key."""
    columns = specs.ranks[numbers].tolist(), specs.offsets[numbers].tolist(), specs.kinds[numbers].tolist()
    return list(zip(*columns, strict=True))
