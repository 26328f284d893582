"""A plan as reads, in the order in which they lie in the files, and all of them carried out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

from bridge.format.table import Form, Table, collector_off
from bridge.mapping.arrays import Arrays, ArrayTable, Numbers, groups
from bridge.mapping.block import Block
from bridge.mapping.indexmap import IndexMap
from bridge.source.bytes import FileSource as FileSource
from bridge.source.bytes import LocalFile
from bridge.stream.buffers import CHUNK, CONTIGUOUS, THREADS
from bridge.stream.direct import ByteRuns, KeyRows, Moves, Read, ScaleAdd, is_contiguous, moves, reads, runs
from bridge.stream.run import Progress, run

if TYPE_CHECKING:
    from bridge.stream.computed import ComputedRead, ComputedSum
    from bridge.stream.scatter import Scatter
    from bridge.stream.transform import TransformRead

Job: TypeAlias = "Read | Scatter | TransformRead | ComputedRead | ComputedSum"


class RowGroup:
    """Rows of a block whose tensors are stored alike for each term, and whose leaves have one dtype."""

    __slots__ = ("block", "dtype", "stored", "terms")

    def __init__(self, block: Block, terms: tuple[KeyRows, ...], stored: tuple[Form, ...], dtype: np.dtype) -> None:
        self.block, self.terms, self.stored, self.dtype = block, terms, stored, dtype

    @property
    def is_bitwise(self) -> bool:
        """Whether the leaves get the bits of the tensors as they are."""
        same = len(self.stored) == 1 and self.stored[0].dtype == self.dtype
        return same and not self.block.changes_values and not self.block.tie


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
    made, computing = _jobs(blocks, specs, contiguous)
    if computing:
        from bridge.stream.computed import computed

        made += computed(computing, specs, blocks[0].leaves.table.names)
    order = {file: rank for rank, file in enumerate(sorted(specs.files))}
    made.sort(key=lambda job: (order[job.file], job.offset))
    return made


class ReadSizes(NamedTuple):
    """What reads come to: how many bytes they read, and what each of the largest takes besides; not those of alike
    tensors one by one.
    """

    nbytes: int
    scratch_nbytes: tuple[int, ...]


@collector_off(many=True)
def sizes(blocks: Sequence[Block], specs: Table) -> ReadSizes:
    """The sizes of `jobs`, of which a checkpoint of 100,000 computed tensors has a million."""
    if not blocks:
        return ReadSizes(0, ())
    made, computing = _jobs(blocks, specs, CHUNK)
    nbytes, scratch = sum(job.nbytes for job in made), [job.scratch_nbytes for job in made if not isinstance(job, Read)]
    if computing:
        from bridge.stream.computed import computed_sizes

        for count, total, largest in computed_sizes(computing, specs, blocks[0].leaves.table.names):
            nbytes += total
            scratch += [largest] * min(count, THREADS)
    return ReadSizes(nbytes, tuple(sorted(scratch, reverse=True)[:THREADS]))


_Computing = list[tuple[Block, Sequence[KeyRows], np.dtype]]


def _jobs(blocks: Sequence[Block], specs: Table, contiguous: int) -> tuple[list[Job], _Computing]:
    """The reads of what is stored, and the rows of which some term is computed."""
    files, leaves = sorted(specs.files), blocks[0].leaves.table
    order = {file: rank for rank, file in enumerate(files)}
    ranks = np.array([order[file] for file in specs.files], np.intp)
    alike: dict[tuple[object, ...], tuple[IndexMap, Form, list[KeyRows]]] = {}
    changing: list[tuple[ScaleAdd, list[Moves]]] = []
    computing: _Computing = []
    for group in _groups(blocks, specs, leaves):
        block, maps = group.block, [term.index_map for term in group.block.terms]
        if any(form.view is not None for form in group.stored):
            computing.append((block, group.terms, group.dtype))
        elif group.is_bitwise:
            # Blocks may share a map: it is the same object.
            key = id(maps[0]), group.dtype, group.stored[0].strides
            alike.setdefault(key, (maps[0], group.stored[0], []))[2].append(group.terms[0])
        else:
            terms = zip(maps, group.terms, group.stored, strict=True)
            change = ScaleAdd(block.scale, block.add, block.tie)
            changing.append((change, [moves(index_map, rows, form.strides) for index_map, rows, form in terms]))
    found: list[ByteRuns] = []
    for index_map, form, parts in alike.values():
        together = moves(index_map, KeyRows.joined(parts), form.strides)
        if is_contiguous(together, form.dtype.itemsize):
            found.append(runs(together, form.dtype.itemsize, specs, ranks))
        else:
            changing.append((ScaleAdd(), [together]))
    made: list[Job] = list(reads(found, leaves.names, specs.names, files, contiguous)) if found else []
    # The dtype that is stored, its axes in order: most loads change nothing.
    if changing:
        from bridge.stream.transform import transformed

        made += transformed(changing, specs, leaves.names)
    return made, computing


def _groups(blocks: Sequence[Block], specs: Table, leaves: ArrayTable) -> Iterator[RowGroup]:
    """The rows of all blocks, by how they are stored and what is wanted."""
    storages: dict[tuple[object, ...], int] = {}
    first: list[Form] = []
    of_form = np.empty(len(specs.forms), np.intp)
    for number, form in enumerate(specs.forms):
        storage = storages.setdefault((form.dtype, form.strides, id(form.view)), len(first))
        first += [form] * (storage == len(first))
        of_form[number] = storage
    dtypes: dict[np.dtype, int] = {}
    of_leaf = np.array([dtypes.setdefault(spec.dtype, len(dtypes)) for spec in leaves.specs], np.intp)
    known, count, numbers = list(dtypes), len(first), located(specs)
    for block in blocks:
        terms = [KeyRows(numbers(t.keys), block.leaves.numbers, t.starts, block.starts) for t in block.terms]
        labels = of_leaf[leaves.kinds[block.leaves.numbers]]
        for rows in terms:
            labels = labels * count + of_form[specs.kinds[rows.keys]]
        for label, at in groups(labels):
            stored: list[Form] = []
            for _ in terms:
                label, storage = divmod(label, count)
                stored.insert(0, first[storage])
            part = terms if len(at) == len(block) else [rows.at(at) for rows in terms]
            yield RowGroup(block, tuple(part), tuple(stored), known[label])


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


_PROBES = 8  # each makes a cold disk read ahead at its place: 32 of them cost as much as a fifth of 0.5 GB


def fill(
    blocks: Sequence[Block],
    specs: Table,
    files: FileSource,
    leaves: Mapping[str, np.ndarray],
    *,
    progress: Progress | None = None,
) -> None:
    """Read what `blocks` say into `leaves`.

    **Arguments:**

    - `blocks`, `specs`: the mapping over `leaves`, all of one table, and where each key lies.
    - `files`: hands out the files' bytes.
    - `leaves`: C-contiguous arrays by name, of the leaves' final dtypes and shapes.
    - `progress`: called with `(done_nbytes, nbytes)`.

    **Raises:** `CheckpointError`, naming key and file; the contents of `leaves` are then undefined.
    """
    filling, comparing = [block for block in blocks if not block.tie], [block for block in blocks if block.tie]
    work, ties = (jobs(part, specs, contiguous=CONTIGUOUS) for part in (filling, comparing))
    distant = reads_at_once([*work, *ties], files)
    threads = distant or (1 if is_cold(work, files) else THREADS)
    if distant is not None:
        from bridge.stream.coalesce import coalesced  # over a network only

        work, ties = (coalesced(jobs(part, specs), files) for part in (filling, comparing))
    if ties and progress is not None:
        filled, total = (sum(job.nbytes for job in part) for part in (work, [*work, *ties]))
        run(work, files, leaves, threads=threads, progress=lambda done, _: progress(done, total))
        run(ties, files, leaves, threads=distant or THREADS, progress=lambda done, _: progress(filled + done, total))
        return
    run(work, files, leaves, threads=threads, progress=progress)
    run(ties, files, leaves, threads=distant or THREADS)


def reads_at_once(jobs: Sequence[Job], files: FileSource) -> int | None:
    """How many reads at once serve the files of `jobs` best; None where all are at hand, and it makes no difference."""
    found = [files.byte_source(file).parallel for file in dict.fromkeys(job.file for job in jobs)]
    return max((count for count in found if count is not None), default=None)


def is_cold(jobs: Sequence[Job], files: FileSource) -> bool:
    """Whether most of what `jobs` read has to come from a local disk, by probes spread evenly over them.

    A disk serves one sequential reader best: a second one breaks its read-ahead (0.37 s where one takes 0.28), while
    memory gives two readers 1.3 to 1.5 times the speed of one.
    """
    step = max(len(jobs) // _PROBES, 1)
    probes = absent = 0
    for job in jobs[::step]:
        source = files.byte_source(job.file)
        if not isinstance(source, LocalFile):
            return False
        probes += 1
        absent += not source.resident(job.offset)
    return 2 * absent > probes
