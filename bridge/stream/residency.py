"""Whether files are in memory already: reading them from a disk wants another number of threads."""

from __future__ import annotations

from collections.abc import Sequence

from bridge.source.bytes import LocalFile
from bridge.stream.jobs import Job
from bridge.stream.run import Files

_PROBES = 8  # each makes a cold disk read ahead at its place: 32 of them cost as much as a fifth of 0.5 GB


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
