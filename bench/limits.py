"""What the machine can do at best: plain reads of the same bytes, from which no arrays are made."""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from bench import ours
from bench.work import Work

THREADS = 2
"""Threads of every limit: as many as bridge reads with."""
CHUNK = 4 << 20
_HUGE = 2 << 20

Run = Callable[[], Any]
Buffer = Callable[[int], memoryview]


def _plain(nbytes: int) -> memoryview:
    return np.empty(nbytes, np.uint8).data


def _huge(nbytes: int) -> memoryview:
    """Fresh memory of 2 MiB pages from its first byte on."""
    block = mmap.mmap(-1, nbytes + _HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    block.madvise(mmap.MADV_HUGEPAGE)
    flat = np.frombuffer(block, np.uint8)
    start = -flat.ctypes.data % _HUGE
    return flat[start : start + nbytes].data


def _touched(nbytes: int) -> memoryview:
    block = _huge(nbytes)
    np.frombuffer(block, np.uint8)[:] = 1
    return block


def _read(file: int, into: memoryview, offset: int) -> None:
    while into.nbytes:
        count = os.preadv(file, [into], offset)
        if count == 0:
            raise EOFError("a file of the bench is shorter than it was made")
        into, offset = into[count:], offset + count


def _in_threads(jobs: Iterable[Any], do: Callable[[Any], None], threads: int) -> None:
    """Every job done by one of `threads` threads; taking the next one from a list is atomic."""
    left = iter(list(jobs))

    def drain() -> None:
        for job in left:
            do(job)

    workers = [threading.Thread(target=drain) for _ in range(threads - 1)]
    for worker in workers:
        worker.start()
    drain()
    for worker in workers:
        worker.join()


def _chunks(path: Path, chunk: int = CHUNK) -> list[tuple[int, int]]:
    nbytes = path.stat().st_size
    return [(start, min(chunk, nbytes - start)) for start in range(0, nbytes, chunk)]


def _reading(work: Work, make: Buffer, threads: int) -> list[memoryview]:
    buffers, jobs, files = [], [], []
    for path in work.paths:
        file = os.open(path, os.O_RDONLY)
        files.append(file)
        buffer = make(path.stat().st_size)
        buffers.append(buffer)
        jobs += [(file, buffer[start : start + length], start) for start, length in _chunks(path)]
    _in_threads(jobs, lambda job: _read(*job), threads)
    for file in files:
        os.close(file)
    return buffers


def fresh(work: Work) -> Run:
    """Plain `preadv` into one fresh `np.empty` for each file."""
    return lambda: _reading(work, _plain, THREADS)


def huge(work: Work) -> Run:
    """The same into fresh memory that is asked for in pages of 2 MiB."""
    return lambda: _reading(work, _huge, THREADS)


def replayed(work: Work) -> Run:
    """The very reads that `bridge.load` makes, decided beforehand, into memory that is asked for as it does.

    For work whose bytes all go straight into their places: nothing is cast, turned or scattered.
    """
    import bridge
    from bridge.mapping.block import MemoryMap
    from bridge.stream.buffers import CONTIGUOUS, as_bytes, empty
    from bridge.stream.jobs import jobs

    memory_map = MemoryMap()
    with bridge.open(work.folder) as ckpt:
        plan = bridge.plan(ckpt, ours.like(work), ours.RULES[work.kind])
        leaves = {name: plan.leaves[name] for block in plan.blocks for name in block.leaves}
        for name, spec in leaves.items():
            memory_map.add(name, name, spec)
        reads = jobs(memory_map.over(plan.blocks), ckpt.specs, contiguous=CONTIGUOUS)

    def run() -> list[np.ndarray]:
        files = {path.name: os.open(path, os.O_RDONLY) for path in work.paths}
        arrays = {name: empty(leaf.shape, leaf.dtype) for name, leaf in leaves.items()}
        memory = {name: as_bytes(array) for name, array in arrays.items()}

        def do(read: Any) -> None:
            count = os.preadv(files[read.file], [memory[name][a:b] for name, a, b in read.parts], read.offset)
            assert count == read.nbytes

        _in_threads(reads, do, THREADS)
        for file in files.values():
            os.close(file)
        return list(arrays.values())

    return run


def touched(work: Work) -> Run:
    """The same into memory that was written to before: what is left is the copy out of the page cache."""
    buffers = {path.stat().st_size: [] for path in work.paths}
    for path in work.paths:
        buffers[path.stat().st_size].append(_touched(path.stat().st_size))
    return lambda: _reading(work, lambda nbytes: buffers[nbytes].pop(), THREADS)


def one_pass(work: Work) -> Run:
    """One thread reads the file from end to end into fresh memory."""
    return lambda: _reading(work, _plain, 1)


def sequential(work: Work) -> Run:
    """One thread reads all files in order, over and over into the same 4 MiB."""

    def run() -> None:
        buffer = memoryview(bytearray(CHUNK))
        for path in work.paths:
            file = os.open(path, os.O_RDONLY)
            for start, length in _chunks(path):
                _read(file, buffer[:length], start)
            os.close(file)

    return run


def _cast(work: Work, ratio: float) -> Run:
    def run() -> list[memoryview]:
        chunk = 1 << 20
        scratch = threading.local()
        out, jobs, files = [], [], []
        for path in work.paths:
            file = os.open(path, os.O_RDONLY)
            files.append(file)
            buffer = _huge(int(path.stat().st_size * ratio))
            out.append(buffer)
            for start, length in _chunks(path, chunk):
                begin, stop = int(start * ratio), int((start + length) * ratio)
                jobs.append((file, start, length, np.frombuffer(buffer[begin:stop], np.uint8)))

        def do(job: tuple[int, int, int, np.ndarray]) -> None:
            file, start, length, target = job
            if not hasattr(scratch, "read"):
                scratch.read = memoryview(bytearray(chunk))
                scratch.write = np.ones(int(chunk * ratio) + 1, np.uint8)
            _read(file, scratch.read[:length], start)
            np.copyto(target, scratch.write[: target.size])

        _in_threads(jobs, do, THREADS)
        for file in files:
            os.close(file)
        return out

    return run


def widened(work: Work) -> Run:
    """Stored bytes read into a cache-resident buffer, and twice as many written to fresh huge pages: no arithmetic."""
    return _cast(work, 2)


def narrowed(work: Work) -> Run:
    """The same with half as many bytes written."""
    return _cast(work, 0.5)


def expanded(work: Work) -> Run:
    """The same with as many bytes written as the arrays of bfloat16 have."""
    final = sum(2 * int(np.prod(place.shape)) for place in work.places.values())
    return _cast(work, final / work.nbytes)


def offset_keys(work: Work) -> Run:
    """The reference library's header alone."""
    from safetensors import safe_open

    def run() -> list[str]:
        with safe_open(work.paths[0], framework="numpy") as file:
            return file.offset_keys()

    return run


def read_then_put(work: Work) -> Run:
    """One pass over the file, then `jax.device_put` of a view of every tensor: what JAX asks for that many arrays."""
    import jax

    def run() -> list[Any]:
        buffers = dict(zip((path.name for path in work.paths), _reading(work, _plain, 1), strict=True))
        arrays = []
        for file, offset, shape in work.places.values():
            count = int(np.prod(shape))
            arrays.append(np.frombuffer(buffers[file], work.dtype, count, offset).reshape(shape))
        return jax.block_until_ready([jax.device_put(array) for array in arrays])

    return run
