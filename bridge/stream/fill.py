"""A plan carried out whole: every leaf filled, then every tie compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bridge.format.table import Table
from bridge.mapping.block import Block
from bridge.stream.chunk import CONTIGUOUS
from bridge.stream.jobs import jobs
from bridge.stream.residency import is_cold
from bridge.stream.run import THREADS, Files, Progress, run
from bridge.stream.together import reads_at_once, together


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
        work, ties = (together(jobs(part, specs), files) for part in (filling, comparing))
    if ties and progress is not None:
        filled, total = (sum(job.nbytes for job in part) for part in (work, [*work, *ties]))
        run(work, files, leaves, threads=threads, progress=lambda done, _: progress(done, total))
        run(ties, files, leaves, threads=distant or THREADS, progress=lambda done, _: progress(filled + done, total))
        return
    run(work, files, leaves, threads=threads, progress=progress)
    run(ties, files, leaves, threads=distant or THREADS)
