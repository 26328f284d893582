"""A plan as reads, in the order in which they lie in the files. No memory is needed to say what is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

import numpy as np

from bridge.format.table import Table, collector_off
from bridge.mapping.arrays import Arrays, ArraySpec, ArrayTable, Numbers, groups
from bridge.mapping.block import Block
from bridge.mapping.indexmap import IndexMap
from bridge.source.bytes import ByteSource
from bridge.stream.chunk import CHUNK
from bridge.stream.direct import Read, Runs, is_contiguous, reads, runs
from bridge.stream.moves import Change, Moves, Rows, moves

if TYPE_CHECKING:
    from bridge.stream.scatter import Scatter
    from bridge.stream.through import TransformRead

Job: TypeAlias = "Read | Scatter | TransformRead"


class Files(Protocol):
    """What hands out the bytes of a file by its name."""

    def byte_source(self, file: str) -> ByteSource:
        """The bytes of one file, open as long as the checkpoint is."""
        ...


class Group(NamedTuple):
    """Rows of a block whose tensors are stored in one dtype for each term, and whose leaves have one dtype."""

    block: Block
    terms: tuple[Rows, ...]
    stored: tuple[np.dtype, ...]
    dtype: np.dtype

    @property
    def is_bitwise(self) -> bool:
        """Whether the leaves get the bits of the tensors as they are."""
        return self.stored == (self.dtype,) and not self.block.changes_values and not self.block.tie

    @property
    def change(self) -> Change:
        """What becomes of the values."""
        return Change(self.block.scale, self.block.add, self.block.tie)


@collector_off(many=True)
def jobs(blocks: Sequence[Block], specs: Table, *, contiguous: int = CHUNK) -> list[Job]:
    """All reads of `blocks`.

    **Arguments:**

    - `blocks`: the mapping over memory: the leaves of all blocks are of one table, which says their dtypes. A tie's
        reads compare, and must come after those that fill its leaf.
    - `specs`: where each key lies.
    - `contiguous`: the most bytes of one read that goes straight into its place.
    """
    if not blocks:
        return []
    files, leaves = sorted(specs.files), blocks[0].leaves.table
    order = {file: rank for rank, file in enumerate(files)}
    ranks = np.array([order[file] for file in specs.files], np.intp)
    alike: dict[tuple[int, np.dtype], tuple[IndexMap, list[Rows]]] = {}
    changing: list[tuple[Change, list[Moves]]] = []
    for group in _groups(blocks, specs, leaves):
        maps = [term.index_map for term in group.block.terms]
        if group.is_bitwise:
            # Blocks may share a map: it is the same object.
            alike.setdefault((id(maps[0]), group.dtype), (maps[0], []))[1].append(group.terms[0])
        else:
            changing.append((group.change, list(map(moves, maps, group.terms))))
    found: list[Runs] = []
    for (_, dtype), (index_map, parts) in alike.items():
        together = moves(index_map, Rows.joined(parts))
        if is_contiguous(together, dtype.itemsize):
            found.append(runs(together, dtype.itemsize, specs, ranks))
        else:
            changing.append((Change(), [together]))
    made: list[Job] = list(reads(found, leaves.names, specs.names, files, contiguous)) if found else []
    if changing:
        from bridge.stream.through import (
            through,  # the dtype that is stored, its axes in order: most loads change nothing
        )

        made += through(changing, specs, leaves.names)
    made.sort(key=lambda job: (order[job.file], job.offset))
    return made


def _groups(blocks: Sequence[Block], specs: Table, leaves: ArrayTable) -> Iterator[Group]:
    """The rows of all blocks, by what is stored and what is wanted."""
    known: dict[np.dtype, int] = {}
    of_form, of_leaf = _dtypes(specs.forms, known), _dtypes(leaves.specs, known)
    dtypes = list(known)
    numbers = located(specs)
    for block in blocks:
        keys = [numbers(term.keys) for term in block.terms]
        labels = of_leaf[leaves.kinds[block.leaves.numbers]]
        columns = [of_form[specs.kinds[column]] for column in keys]
        for column in columns:
            labels = labels * len(dtypes) + column
        terms = [
            Rows(column, block.leaves.numbers, term.starts, block.starts)
            for term, column in zip(block.terms, keys, strict=True)
        ]
        for label, at in groups(labels):
            stored: list[np.dtype] = []
            for _ in terms:
                label, number = divmod(label, len(dtypes))
                stored.insert(0, dtypes[number])
            part = terms if len(at) == len(block) else [rows.at(at) for rows in terms]
            yield Group(block, tuple(part), tuple(stored), dtypes[label])


def _dtypes(specs: Sequence[ArraySpec], known: dict[np.dtype, int]) -> Numbers:
    """The number of each spec's dtype."""
    return np.array([known.setdefault(spec.dtype, len(known)) for spec in specs], np.intp)


def located(specs: Table) -> Callable[[Arrays], Numbers]:
    """How keys that a plan knows by the numbers of its own table are found in `specs`."""
    tables: dict[int, Numbers] = {}

    def numbers(keys: Arrays) -> Numbers:
        table = keys.table
        if table.names is specs.names:
            return keys.numbers
        if id(table) not in tables:
            tables[id(table)] = np.array([specs.numbers.get(name, -1) for name in table.names], np.intp)
        return tables[id(table)][keys.numbers]

    return numbers
