"""Jobs carried out by a few threads: the first error stops them all and is the one that arrives."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np

from bridge._errors import CheckpointError
from bridge._text import quote
from bridge.stream.buffers import CHUNK, THREADS, as_bytes, empty
from bridge.stream.direct import Read

if TYPE_CHECKING:
    from bridge.stream.coalesce import CoalescedRead
    from bridge.stream.computed import ComputedRead, ComputedSum
    from bridge.stream.jobs import FileSource, Job
    from bridge.stream.scatter import Scatter
    from bridge.stream.transform import TransformRead

    Changing = TransformRead | Scatter | ComputedRead | ComputedSum

Progress = Callable[[int, int], None]


def run(
    jobs: Sequence[Job | CoalescedRead],
    files: FileSource,
    leaves: Mapping[str, np.ndarray],
    *,
    threads: int = THREADS,
    progress: Progress | None = None,
) -> None:
    """Carry out `jobs` in order, from `threads` threads, into `leaves`.

    **Raises:** the first error of any thread, once all have stopped; nothing is left running.
    """
    work = _JobQueue(jobs, files, leaves)
    count = min(threads, len(jobs)) - 1
    workers = [threading.Thread(target=work.guarded, name=f"bridge-read-{n}", daemon=True) for n in range(count)]
    try:
        for worker in workers:
            worker.start()
        # This thread works too, so that an interrupt arrives here, between two reads.
        work.drain(progress)
    finally:
        work.stopped = True
        _join(workers)
        # Kept there, an error would hold itself alive, and with it the files of the frames in its traceback.
        error, work.error = work.error, None
    if error is not None:
        try:
            raise error
        finally:
            del error
    if progress is not None and workers:
        progress(work.total, work.total)


def _join(workers: Sequence[threading.Thread]) -> None:
    """Wait until all have ended; an interrupt that comes meanwhile waits too, so that nobody goes on writing."""
    # One whose start was interrupted before it ran finds the work stopped.
    alive = [worker for worker in workers if worker.is_alive()]
    try:
        for worker in alive:
            worker.join()
    except BaseException:
        for worker in alive:
            worker.join()
        raise


class _JobQueue:
    """The jobs that are left, handed out one at a time."""

    def __init__(
        self, jobs: Sequence[Job | CoalescedRead], files: FileSource, leaves: Mapping[str, np.ndarray]
    ) -> None:
        self.files = files
        self.leaves = leaves
        self.memory = {name: as_bytes(leaf) for name, leaf in leaves.items() if leaf.flags.writeable}
        self.total = sum(job.nbytes for job in jobs)
        # What lies between reads that are made together is written here, and never looked at.
        self.unwanted = memoryview(bytearray(max((getattr(job, "gap_nbytes", 0) for job in jobs), default=0)))
        self.jobs = iter(jobs)
        self.done = 0
        self.lock = threading.Lock()
        self.error: BaseException | None = None
        self.stopped = False

    def guarded(self) -> None:
        """`drain`, with the error kept for the thread that waits."""
        try:
            self.drain(None)
        except BaseException as error:  # noqa: BLE001 - handed to the caller's thread, whatever it is
            self.error = self.error or error
            self.stopped = True

    def drain(self, progress: Progress | None) -> None:
        """Take and carry out jobs until none is left or an error has stopped the work."""
        scratch = _CacheScratch()
        while not self.stopped:
            with self.lock:
                job = next(self.jobs, None)
            if job is None:
                return
            if isinstance(job, Read):
                into = [self.memory[leaf][start:stop] for leaf, start, stop in job.parts]
                self.read(job.file, into, job.offset, job.key)
            elif hasattr(job, "requests"):
                self.several(cast("CoalescedRead", job), scratch)
            else:
                self.change(cast("Changing", job), scratch)
            with self.lock:
                self.done += job.nbytes
                done = self.done
            if progress is not None:
                progress(done, self.total)

    def change(self, job: Changing, scratch: _CacheScratch) -> None:
        """Read the sources of a job into scratch and let it finish."""
        arrays: list[np.ndarray] = []
        for source, part in zip(job.sources, scratch.parts([source.nbytes for source in job.sources]), strict=True):
            self.read(source.file, [part], source.offset, source.key)
            arrays.append(np.frombuffer(part, source.dtype))
        self.finish(job, arrays)

    def finish(self, job: Changing, arrays: Sequence[np.ndarray]) -> None:
        """Copy what was read to its places; an error names key and file."""
        try:
            job.finish(arrays, self.leaves)
        except CheckpointError as error:
            from bridge.stream.convert import DoesNotFitError, UntiedError

            advice = error.advice
            if isinstance(error, DoesNotFitError):
                x64 = "Turn on jax_enable_x64, or give" if error.whole else "Give"
                advice = f"{x64} the leaf another dtype with dtype="
            subject = f"{quote(job.key)} in {quote(job.file)}"
            if isinstance(error, UntiedError):
                raise UntiedError(subject, error.problem, advice, key=job.key) from error
            raise CheckpointError(subject, error.problem, advice) from error

    def several(self, coalesced: CoalescedRead, scratch: _CacheScratch) -> None:
        """A few reads for several jobs, and then what there is left to do for each."""
        changing = [job for job in coalesced.jobs if not isinstance(job, Read)]
        parts = iter(scratch.parts([source.nbytes for job in changing for source in job.sources]))
        into: list[list[list[memoryview]]] = []  # for each job, and each of its sources
        for job in coalesced.jobs:
            if isinstance(job, Read):
                into.append([[self.memory[leaf][start:stop] for leaf, start, stop in job.parts]])
            else:
                into.append([[next(parts)] for _ in job.sources])
        for runs, gaps in coalesced.requests:
            buffers: list[memoryview] = []
            for run, gap in zip(runs, gaps, strict=True):
                buffers += [self.unwanted[:gap]] * (gap > 0) + into[run.job][run.source]
            job = coalesced.jobs[runs[0].job]
            key = job.key if isinstance(job, Read) else job.sources[runs[0].source].key
            self.read(runs[0].file, buffers, runs[0].offset, key)
        for job, buffers_of in zip(coalesced.jobs, into, strict=True):
            if not isinstance(job, Read):
                pairs = zip(job.sources, buffers_of, strict=True)
                self.finish(job, [np.frombuffer(part, source.dtype) for source, (part,) in pairs])

    def read(self, file: str, into: Sequence[memoryview], offset: int, key: str) -> None:
        """Fill buffers from a file; an error names the key too."""
        try:
            self.files.byte_source(file).readinto(into, offset)
        except CheckpointError as error:
            raise CheckpointError(f"key {quote(key)}", f": {error.statement}", error.advice) from error


class _CacheScratch:
    """Memory of one thread that stays in the processor's cache from job to job."""

    def __init__(self) -> None:
        self.memory = _bytes(0)

    def parts(self, lengths: Sequence[int]) -> list[memoryview]:
        """Parts of these lengths, each aligned to 64 bytes."""
        needed = sum(-(-length // 64) * 64 for length in lengths)
        if len(self.memory) < needed:
            self.memory = _bytes(0)  # the old goes before the new comes
            self.memory = _bytes(max(needed, min(CHUNK, 4 * needed)))
        start = 0
        parts: list[memoryview] = []
        for length in lengths:
            parts.append(self.memory[start : start + length].data)
            start += -(-length // 64) * 64
        return parts


def _bytes(nbytes: int) -> np.ndarray:
    """Scratch is made as the arrays are, and goes back to the system when it is dropped: a heap would keep it."""
    return empty((nbytes,), np.dtype(np.uint8))
