"""Jobs carried out by a few threads: the first error stops them all and is the one that arrives."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from math import prod
from typing import Protocol

from bridge._errors import CheckpointError
from bridge._text import quote
from bridge.source.bytes import ByteSource
from bridge.stream.jobs import CHUNK, Direct, Job, Source

Progress = Callable[[int, int], None]
_VECTOR = 512  # buffers of one preadv; neighbours in the file are read together


class Files(Protocol):
    """What hands out the bytes of a file by its name."""

    def byte_source(self, file: str) -> ByteSource:
        """The bytes of one file, open as long as the checkpoint is."""
        ...


def run(jobs: Sequence[Job], files: Files, *, threads: int = 2, progress: Progress | None = None) -> None:
    """Carry out `jobs` in order, from `threads` threads.

    **Raises:** the first error of any thread, once all have stopped; nothing is left running.
    """
    work = _Work(jobs, files)
    if threads <= 1 or len(jobs) < 2:
        work.drain(progress)
        return
    workers = [threading.Thread(target=work.guarded, name=f"bridge-read-{n}", daemon=True) for n in range(threads - 1)]
    for worker in workers:
        worker.start()
    try:
        # This thread works too, so that an interrupt arrives here, between two reads.
        work.drain(progress)
    finally:
        work.stopped = True
        for worker in workers:
            worker.join()
    if work.error is not None:
        raise work.error
    if progress is not None and work.total:
        progress(work.total, work.total)


class _Work:
    """The jobs that are left, handed out one batch at a time."""

    def __init__(self, jobs: Sequence[Job], files: Files) -> None:
        self.files = files
        self.batches = _batches(jobs)
        self.total = sum(map(_nbytes, jobs))
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
        """Take and carry out batches until none is left or an error has stopped the work."""
        scratch = memoryview(bytearray(0))
        while not self.stopped:
            with self.lock:
                batch = next(self.batches, None)
            if batch is None:
                return
            scratch = self.carry_out(batch, scratch)
            with self.lock:
                self.done += sum(map(_nbytes, batch))
                done = self.done
            if progress is not None:
                progress(done, self.total)

    def carry_out(self, batch: Sequence[Job], scratch: memoryview) -> memoryview:
        """One batch: neighbouring direct reads, or one read through scratch. Returns the scratch to use next."""
        first = batch[0]
        if isinstance(first, Direct):
            self.read(first.file, [job.into for job in batch if isinstance(job, Direct)], first.offset, first.key)
            return scratch
        needed = sum(-(-source.nbytes // 64) * 64 for source in first.sources)
        if len(scratch) < needed:
            scratch = memoryview(bytearray(max(needed, min(CHUNK, needed * 2))))
        arrays, start = [], 0
        for source in first.sources:
            into = scratch[start : start + source.nbytes]
            self.read(source.file, [into], source.offset, source.key)
            arrays.append(source.view(into))
            start += -(-source.nbytes // 64) * 64
        try:
            first.finish(arrays)
        except CheckpointError as error:
            source: Source = first.sources[0]
            raise CheckpointError(f"{quote(source.key)} in {quote(source.file)} {error}.") from error
        return scratch

    def read(self, file: str, into: list[memoryview], offset: int, key: str) -> None:
        """Fill buffers from a file; an error names the key too."""
        try:
            self.files.byte_source(file).readinto(into, offset)
        except CheckpointError as error:
            raise CheckpointError(f"key {quote(key)}: {error}") from error


def _nbytes(job: Job) -> int:
    if isinstance(job, Direct):
        return job.into.nbytes
    return sum(prod(source.shape) * source.dtype.itemsize for source in job.sources)


def _batches(jobs: Sequence[Job]) -> Iterator[list[Job]]:
    """Direct reads that touch in the file as one, up to a chunk."""
    batch: list[Job] = []
    stop, nbytes, file = -1, 0, ""
    for job in jobs:
        if isinstance(job, Direct):
            length = job.into.nbytes
            if batch and job.file == file and job.offset == stop and nbytes + length <= CHUNK and len(batch) < _VECTOR:
                batch.append(job)
            else:
                if batch:
                    yield batch
                batch, nbytes, file = [job], 0, job.file
            stop, nbytes = job.offset + length, nbytes + length
        else:
            if batch:
                yield batch
            batch, stop = [], -1
            yield [job]
    if batch:
        yield batch
