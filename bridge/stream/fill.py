"""A plan carried out whole: every leaf filled, then every tie compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bridge.format.table import Table
from bridge.mapping.block import Block
from bridge.source.bytes import LocalFile
from bridge.stream.buffers import CONTIGUOUS, THREADS
from bridge.stream.jobs import Files, Job, jobs
from bridge.stream.run import Progress, run

_PROBES = 8  # each makes a cold disk read ahead at its place: 32 of them cost as much as a fifth of 0.5 GB


def fill(
    blocks: Sequence[Block],
    specs: Table,
    files: Files,
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


def reads_at_once(jobs: Sequence[Job], files: Files) -> int | None:
    """How many reads at once serve the files of `jobs` best; None where all are at hand, and it makes no difference."""
    found = [files.byte_source(file).parallel for file in dict.fromkeys(job.file for job in jobs)]
    return max((count for count in found if count is not None), default=None)


def is_cold(jobs: Sequence[Job], files: Files) -> bool:
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
