"""A plan as reads, in the order in which they lie in the files. No memory is needed to say what is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bridge.format.spec import TensorSpec
from bridge.mapping.block import Block
from bridge.stream.direct import Read, Runs, is_straight, reads, runs
from bridge.stream.moves import Moves, moves
from bridge.stream.through import Through, through

Job = Read | Through


def jobs(blocks: Sequence[Block], specs: Mapping[str, TensorSpec], dtypes: Mapping[str, np.dtype]) -> list[Job]:
    """All reads of `blocks`.

    **Arguments:**

    - `blocks`: the mapping; a tie's reads compare, and must come after those that fill its leaf.
    - `specs`: where each key lies.
    - `dtypes`: of the leaves.
    """
    files = sorted({specs[key].file for block in blocks for term in block.terms for key in term.keys})
    ranks = {file: n for n, file in enumerate(files)}
    straight: list[Runs] = []
    changing: list[tuple[Block, list[Moves]]] = []
    for block in blocks:
        terms = moves(block)
        if not block.tie and is_straight(block, terms[0], specs, dtypes[block.leaf]):
            straight.append(runs(block, terms[0], specs, ranks))
        else:
            changing.append((block, terms))
    found: list[Job] = [*reads(straight, files), *through(changing, specs)]
    found.sort(key=lambda job: (ranks[job.file], job.offset))
    return found
