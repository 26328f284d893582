"""A plan as reads, in the order in which they lie in the files. No memory is needed to say what is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np

from bridge.format.table import Table, collector_off
from bridge.mapping.block import Block
from bridge.source.bytes import ByteSource
from bridge.stream.chunk import CHUNK
from bridge.stream.direct import Read, Runs, is_bitwise, is_straight, reads, runs
from bridge.stream.moves import Moves, joined, moves

if TYPE_CHECKING:
    from bridge.stream.scatter import Scatter
    from bridge.stream.through import Through

Job: TypeAlias = "Read | Scatter | Through"


class Files(Protocol):
    """What hands out the bytes of a file by its name."""

    def byte_source(self, file: str) -> ByteSource:
        """The bytes of one file, open as long as the checkpoint is."""
        ...


@collector_off(many=True)
def jobs(blocks: Sequence[Block], specs: Table, dtypes: Mapping[str, np.dtype], *, straight: int = CHUNK) -> list[Job]:
    """All reads of `blocks`.

    **Arguments:**

    - `blocks`: the mapping; a tie's reads compare, and must come after those that fill its leaf.
    - `specs`: where each key lies.
    - `dtypes`: of the leaves.
    - `straight`: the most bytes of one read that goes straight into its place.
    """
    files = sorted(specs.files)
    order = {file: rank for rank, file in enumerate(files)}
    leaves: dict[str, int] = {}
    alike: dict[tuple[int, np.dtype], list[Block]] = {}
    changing: list[tuple[Block, list[Moves]]] = []
    for block in blocks:
        leaves.setdefault(block.leaf, len(leaves))
        if block.tie or not is_bitwise(block, dtypes[block.leaf]):
            changing.append((block, moves(block)))
        else:
            # The layers of a list have leaves of their own, but one map: it is the same object.
            alike.setdefault((id(block.terms[0].index_map), dtypes[block.leaf]), []).append(block)
    found: list[Runs] = []
    ranks = np.array([order[file] for file in specs.files], np.intp)
    for (_, dtype), members in alike.items():
        together = joined(members)
        if is_straight(together, dtype):
            owners = np.repeat([leaves[block.leaf] for block in members], [len(block.starts) for block in members])
            found.append(runs(together, owners, specs, ranks))
        else:
            changing += [(block, moves(block)) for block in members]
    made: list[Job] = list(reads(found, list(leaves), specs.names, files, straight)) if found else []
    if changing:
        from bridge.stream.through import (
            through,  # the dtype that is stored, its axes in order: most loads change nothing
        )

        made += through(changing, specs)
    made.sort(key=lambda job: (order[job.file], job.offset))
    return made
