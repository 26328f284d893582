"""Jobs whose bytes are asked for at once: over a network the wait for an answer costs more than some bytes too many."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from bridge._values import Record
from bridge.stream.chunk import CHUNK
from bridge.stream.direct import Read
from bridge.stream.jobs import Files, Job

_UNWANTED_SHARE = 0.04
"""Bytes that may be read and thrown away, as a share of those that are needed."""


class Together(Record):
    """Jobs of one file by one read; `gaps` says how many bytes nobody wants lie before each, none before the first."""

    jobs: tuple[Job, ...]
    gaps: tuple[int, ...]

    @property
    def file(self) -> str:
        """The file of all of them."""
        return self.jobs[0].file

    @property
    def offset(self) -> int:
        """Where the read starts."""
        return self.jobs[0].offset

    @property
    def key(self) -> str:
        """The first job's key, for messages."""
        first = self.jobs[0]
        return first.key if isinstance(first, Read) else first.sources[0].key

    @property
    def nbytes(self) -> int:
        """How many bytes are wanted."""
        return sum(job.nbytes for job in self.jobs)


def reads_at_once(jobs: Sequence[Job], files: Files) -> int | None:
    """How many reads at once serve the files of `jobs` best; None where all are at hand, and it makes no difference."""
    found = [files.byte_source(file).parallel for file in dict.fromkeys(job.file for job in jobs)]
    return max((count for count in found if count is not None), default=None)


def together(jobs: Sequence[Job], files: Files) -> list[Job | Together]:
    """`jobs`, which are in the order of the files, with neighbours joined into reads of a chunk at most.

    What lies between two may be read with them where it is short, the shortest gaps first, as long as all of it is no
    more than 4 % of what is needed: so the number of requests is the least that this many bytes can buy.
    """
    limits = {file: files.byte_source(file).gap_nbytes for file in dict.fromkeys(job.file for job in jobs)}
    gaps = [_gap(one, two, limits[one.file]) for one, two in pairwise(jobs)]
    left = int(_UNWANTED_SHARE * sum(job.nbytes for job in jobs))
    bridged: set[int] = set()
    for gap, place in sorted((gap, place) for place, gap in enumerate(gaps) if gap is not None):
        if gap > left:
            break
        left -= gap
        bridged.add(place)
    found: list[Job | Together] = []
    group: list[Job] = []
    before: list[int] = []
    nbytes = 0
    for place, job in enumerate(jobs):
        gap = gaps[place - 1] if place - 1 in bridged else None
        if gap is not None and nbytes + gap + job.nbytes <= CHUNK:
            nbytes += gap + job.nbytes
        else:
            found += _group(group, before)
            group, before, gap, nbytes = [], [], 0, job.nbytes
        group.append(job)
        before.append(gap)
    return [*found, *_group(group, before)]


def _gap(one: Job, two: Job, limit: int) -> int | None:
    """The bytes between two jobs that one read can serve; None where it cannot."""
    alone = any(not isinstance(job, Read) and len(job.sources) > 1 for job in (one, two))
    if alone or one.file != two.file:
        return None
    gap = two.offset - one.offset - one.nbytes
    return gap if 0 <= gap <= limit else None


def _group(jobs: Sequence[Job], gaps: Sequence[int]) -> list[Job | Together]:
    return list(jobs) if len(jobs) < 2 else [Together(tuple(jobs), tuple(gaps))]
