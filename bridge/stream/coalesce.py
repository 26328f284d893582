"""Jobs whose bytes are asked for at once: over a network the wait for an answer costs more than some bytes too many."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from bridge.stream.buffers import CHUNK, batches
from bridge.stream.direct import Read
from bridge.stream.jobs import FileSource, Job

_UNWANTED_SHARE = 0.04
"""Bytes that may be read and thrown away, as a share of those that are needed."""


class Run(NamedTuple):
    """Bytes that a job wants as one run of a file; the job and its source by number."""

    file: str
    offset: int
    nbytes: int
    job: int
    source: int


class ReadRange(NamedTuple):
    """Neighbouring runs of a file, read at once; `gaps` are unwanted bytes before each, none before the first."""

    runs: tuple[Run, ...]
    gaps: tuple[int, ...]


class CoalescedRead(NamedTuple):
    """Jobs whose runs are read by as few requests as serve them."""

    jobs: tuple[Job, ...]
    requests: tuple[ReadRange, ...]

    @property
    def file(self) -> str:
        """The first job's file."""
        return self.jobs[0].file

    @property
    def offset(self) -> int:
        """Where the first job starts."""
        return self.jobs[0].offset

    @property
    def nbytes(self) -> int:
        """How many bytes are wanted."""
        return sum(job.nbytes for job in self.jobs)

    @property
    def gap_nbytes(self) -> int:
        """The longest gap."""
        return max(max(request.gaps) for request in self.requests)


def coalesced(jobs: Sequence[Job], files: FileSource) -> list[Job | CoalescedRead]:
    """`jobs`, which are in the order of the files, with neighbours joined into reads of a chunk at most.

    What lies between two may be read with them where it is short, the shortest gaps first, as long as all of it is no
    more than 4 % of what is needed: so the number of requests is the least that this many bytes can buy. Jobs that read
    several runs are taken together, as many as a chunk holds, since the runs of neighbours are neighbours.
    """
    named = dict.fromkeys(run.file for job in jobs for run in _runs(job, 0))
    limits = {file: files.byte_source(file).gap_nbytes for file in named}
    single, several = ([job for job in jobs if (len(_runs(job, 0)) > 1) is many] for many in (False, True))
    found: list[Job | CoalescedRead] = []
    for runs, gaps in _requests([run for n, job in enumerate(single) for run in _runs(job, n)], limits):
        members = tuple([single[run.job] for run in runs])
        request = ReadRange(tuple([run._replace(job=n) for n, run in enumerate(runs)]), gaps)
        found.append(members[0] if len(members) == 1 else CoalescedRead(members, (request,)))
    for group in batches(several, CHUNK):
        wanted = sorted(run for n, job in enumerate(group) for run in _runs(job, n))
        found.append(CoalescedRead(tuple(group), tuple(_requests(wanted, limits))))
    order = {file: rank for rank, file in enumerate(dict.fromkeys(job.file for job in jobs))}
    return sorted(found, key=lambda job: (order[job.file], job.offset))


def _runs(job: Job, number: int) -> list[Run]:
    if isinstance(job, Read):
        return [Run(job.file, job.offset, job.nbytes, number, 0)]
    return [Run(source.file, source.offset, source.nbytes, number, n) for n, source in enumerate(job.sources)]


def _requests(runs: Sequence[Run], limits: Mapping[str, int]) -> Iterator[ReadRange]:
    """Runs in the order of the files, neighbours joined as far as a chunk goes."""
    gaps = [_gap(one, two, limits[one.file]) for one, two in pairwise(runs)]
    left = int(_UNWANTED_SHARE * sum(run.nbytes for run in runs))
    bridged: set[int] = set()
    for gap, place in sorted((gap, place) for place, gap in enumerate(gaps) if gap is not None):
        if gap > left:
            break
        left -= gap
        bridged.add(place)
    group: list[Run] = []
    before: list[int] = []
    nbytes = 0
    for place, run in enumerate(runs):
        gap = gaps[place - 1] if place - 1 in bridged else None
        if gap is not None and nbytes + gap + run.nbytes <= CHUNK:
            nbytes += gap + run.nbytes
        else:
            if group:
                yield ReadRange(tuple(group), tuple(before))
            group, before, gap, nbytes = [], [], 0, run.nbytes
        group.append(run)
        before.append(gap)
    if group:
        yield ReadRange(tuple(group), tuple(before))


def _gap(one: Run, two: Run, limit: int) -> int | None:
    """The bytes between two runs that one read can serve; None where it cannot."""
    gap = two.offset - one.offset - one.nbytes
    return gap if one.file == two.file and 0 <= gap <= limit else None
