"""A plan as reads, in the order in which they lie in the files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from bridge.format.spec import TensorSpec
from bridge.mapping.block import Block
from bridge.stream.buffers import as_bytes
from bridge.stream.direct import Read, Runs, reads, runs
from bridge.stream.moves import moves
from bridge.stream.through import Through, compare, through

Job = Read | Through


def jobs(blocks: Sequence[Block], specs: Mapping[str, TensorSpec], leaves: Mapping[str, np.ndarray]) -> list[Job]:
    """All reads that fill `leaves`. Ties are not among them: what they compare must have been read before."""
    files = list(dict.fromkeys(specs[key].file for block in blocks for term in block.terms for key in term.keys))
    ranks = {file: n for n, file in enumerate(sorted(files))}
    direct: list[Runs] = []
    found: list[Job] = []
    for block in blocks:
        if block.tie:
            continue
        terms, leaf = moves(block), leaves[block.leaf]
        straight = runs(block, terms[0], specs, ranks, leaf)
        if straight is not None:
            direct.append(straight)
        else:
            found += through(block, terms, specs, leaf)
    found += reads(direct, sorted(files), {part.leaf: as_bytes(leaves[part.leaf]) for part in direct})
    found.sort(key=lambda job: (ranks[job.file], job.offset))
    return found


def ties(blocks: Sequence[Block], specs: Mapping[str, TensorSpec], leaves: Mapping[str, np.ndarray]) -> Iterator[Job]:
    """Reads that compare a tied key with the leaf that another key has filled."""
    for block in blocks:
        if block.tie:
            yield from compare(block, moves(block), specs, leaves[block.leaf])
