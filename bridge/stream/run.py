"""Jobs carried out by a few threads: the first error stops them all and is the one that arrives."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from bridge._errors import CheckpointError
from bridge._text import quote
from bridge.stream.buffers import as_bytes, empty
from bridge.stream.chunk import CHUNK
from bridge.stream.direct import Read
from bridge.stream.jobs import Files as Files
from bridge.stream.jobs import Job
from bridge.stream.together import Together

if TYPE_CHECKING:
    from bridge.stream.scatter import Scatter
    from bridge.stream.through import TransformRead

Progress = Callable[[int, int], None]
THREADS = 2
"""Two give 1.3 to 1.5 times the speed of one where the bytes are in memory already; more give nothing on two cores."""


def run(
    jobs: Sequence[Job | Together],
    files: Files,
    leaves: Mapping[str, np.ndarray],
    *,
    threads: int = THREADS,
    progress: Progress | None = None,
) -> None:
    """Carry out `jobs` in order, from `threads` threads, into `leaves`.

    **Raises:** the first error of any thread, once all have stopped; nothing is left running.
    """
    work = _Work(jobs, files, leaves)
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


class _Work:
    """The jobs that are left, handed out one at a time."""

    def __init__(self, jobs: Sequence[Job | Together], files: Files, leaves: Mapping[str, np.ndarray]) -> None:
        self.files = files
        self.leaves = leaves
        self.memory = {name: as_bytes(leaf) for name, leaf in leaves.items() if leaf.flags.writeable}
        self.total = sum(job.nbytes for job in jobs)
        # What lies between reads that are made together is written here, and never looked at.
        self.unwanted = memoryview(bytearray(max((max(j.gaps) for j in jobs if isinstance(j, Together)), default=0)))
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
        scratch = _Scratch()
        while not self.stopped:
            with self.lock:
                job = next(self.jobs, None)
            if job is None:
                return
            if isinstance(job, Read):
                into = [self.memory[leaf][start:stop] for leaf, start, stop in job.parts]
                self.read(job.file, into, job.offset, job.key)
            elif isinstance(job, Together):
                self.several(job, scratch)
            else:
                self.change(job, scratch)
            with self.lock:
                self.done += job.nbytes
                done = self.done
            if progress is not None:
                progress(done, self.total)

    def change(self, job: TransformRead | Scatter, scratch: _Scratch) -> None:
        """Read the sources of a job into scratch and let it finish."""
        arrays: list[np.ndarray] = []
        for source, part in zip(job.sources, scratch.parts([source.nbytes for source in job.sources]), strict=True):
            self.read(source.file, [part], source.offset, source.key)
            arrays.append(np.frombuffer(part, source.dtype))
        self.finish(job, arrays)

    def finish(self, job: TransformRead | Scatter, arrays: Sequence[np.ndarray]) -> None:
        """Copy what was read to its places; an error names key and file."""
        try:
            job.finish(arrays, self.leaves)
        except CheckpointError as error:
            from bridge.stream.convert import DoesNotFitError

            source = job.sources[0]
            unfit = isinstance(error, DoesNotFitError)
            more = ": turn on jax_enable_x64, or say with dtype= what the leaf should be" if unfit else ""
            raise CheckpointError(f"{quote(source.key)} in {quote(source.file)} {error}{more}.") from error

    def several(self, together: Together, scratch: _Scratch) -> None:
        """One read for several jobs, and then what there is left to do for each."""
        changing = [job for job in together.jobs if not isinstance(job, Read)]
        parts = iter(scratch.parts([job.nbytes for job in changing]))
        into: list[memoryview] = []
        arrays: list[np.ndarray] = []
        for job, gap in zip(together.jobs, together.gaps, strict=True):
            if gap:
                into.append(self.unwanted[:gap])
            if isinstance(job, Read):
                into += [self.memory[leaf][start:stop] for leaf, start, stop in job.parts]
            else:
                into.append(next(parts))
                arrays.append(np.frombuffer(into[-1], job.sources[0].dtype))
        self.read(together.file, into, together.offset, together.key)
        for job, array in zip(changing, arrays, strict=True):
            self.finish(job, [array])

    def read(self, file: str, into: Sequence[memoryview], offset: int, key: str) -> None:
        """Fill buffers from a file; an error names the key too."""
        try:
            self.files.byte_source(file).readinto(into, offset)
        except CheckpointError as error:
            raise CheckpointError(f"key {quote(key)}: {error}") from error


class _Scratch:
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
