"""Ties: two keys of the same bytes, where there is nothing to compare; and what to say where two keys differ."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager

import numpy as np

from bridge._errors import CheckpointError
from bridge.format.table import Table
from bridge.mapping.block import Block
from bridge.mapping.indexmap import IndexMap
from bridge.stream.convert import UnequalTieError
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


@contextmanager
def both_keys_named(filling: Sequence[Block], comparing: Sequence[Block]) -> Generator[None]:
    """Around filling and comparing: the error of a tie that is none names the key that fills the leaf, too."""
    try:
        yield
    except UnequalTieError as error:
        other = _filling(error.key, filling, comparing)
        raise CheckpointError(str(UnequalTieError(error.key, error.file, other))) from error


def _filling(key: str, filling: Sequence[Block], comparing: Sequence[Block]) -> str:
    """The key that fills the leaf which `key` is compared with: of several that at its place; empty without one."""
    places: dict[str, list[int]] = {}
    for block in comparing:
        for row, leaf in enumerate(block.leaves):
            if block.terms[0].keys[row] == key:
                places[leaf] = block.starts[row].tolist()
    found = ""
    for block in filling:
        for row, leaf in enumerate(block.leaves):
            if leaf in places:
                found = found or block.terms[0].keys[row]
                if block.starts[row].tolist() == places[leaf]:
                    return block.terms[0].keys[row]
    return found


def _places(block: Block, specs: Table, numbers: np.ndarray) -> list[tuple[int, int, int]]:
    """Of each row the file, the first byte and the form of its key."""
    columns = specs.ranks[numbers].tolist(), specs.offsets[numbers].tolist(), specs.kinds[numbers].tolist()
    return list(zip(*columns, strict=True))
