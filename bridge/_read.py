"""A proven plan carried out: memory, reads, device arrays. Where stream and place meet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
from jax.sharding import Sharding

from bridge._progress import Progress, reporting
from bridge.format.native import is_native
from bridge.mapping.block import Block
from bridge.mapping.template import Spec
from bridge.place.memory import check_memory
from bridge.place.staged import DEFAULT_HOST_NBYTES, Staging
from bridge.place.work import Work
from bridge.planning.plan import Plan
from bridge.source.checkpoint import Checkpoint
from bridge.stream.buffers import empty
from bridge.stream.chunk import CHUNK
from bridge.stream.fill import fill
from bridge.stream.jobs import jobs
from bridge.stream.mapped import mapped
from bridge.stream.run import THREADS

Placements = Mapping[str, Sharding | None]


def predicted(ckpt: Checkpoint, made: Plan, where: Placements, max_host_bytes: int | None) -> Plan:
    """The plan with the bytes that this process reads, and the host memory that it needs for that at once."""
    if not made.ok:
        return made
    held, staged, budget = _split(made, where, max_host_bytes)
    work = Work(held, _leaves(made, held), where)
    dtypes = {name: dtype for name, (_, dtype) in work.buffers.items()}
    nbytes = sum(job.nbytes for job in jobs(work.blocks, ckpt.specs, dtypes))
    if staged:
        staging = Staging(staged, _leaves(made, staged), where, budget)
        for batch in staging.batches():
            kinds = {piece.name: made.leaves[piece.leaf].dtype for piece in batch}
            blocks = [block for piece in batch for block in staging.cut(piece)]
            nbytes += sum(job.nbytes for job in jobs(blocks, ckpt.specs, kinds))
    peak_nbytes = work.nbytes + THREADS * CHUNK + (budget if staged else 0)
    return replace(made, nbytes=nbytes, peak_nbytes=peak_nbytes)


def read_leaves(
    ckpt: Checkpoint,
    made: Plan,
    where: Placements,
    max_host_bytes: int | None,
    progress: Progress | bool | None,
    *,
    mmap: bool,
) -> dict[str, jax.Array]:
    """Every leaf that the plan fills, read and placed.

    **Raises:** `CheckpointError` for what reading finds; `PlanError` for memory that cannot be had.
    """
    held, staged, budget = _split(made, where, max_host_bytes)
    leaves = _leaves(made, held) | {name: made.leaves[name] for name in made.fills}
    work = Work(held, leaves, where)
    memory = mapped(work.whole, ckpt.specs, ckpt, leaves) if mmap and is_native(ckpt.metadata) else {}
    blocks = [block for block in work.blocks if block.leaf not in memory]
    staging = Staging(staged, _leaves(made, staged), where, budget) if staged else None
    check_memory(work.nbytes - sum(a.nbytes for a in memory.values()) + (budget if staging else 0), ckpt.source)
    memory |= {name: empty(shape, dtype) for name, (shape, dtype) in work.buffers.items() if name not in memory}
    for name, value in made.fills.items():
        for buffer in work.memory(name, memory):
            buffer.fill(value)
    with reporting(progress) as report:
        fill(blocks, ckpt.specs, ckpt, memory, progress=report if staging is None else None)
        # A device array takes its memory over: no view of it may stay behind.
        values: dict[str, Any] = {name: work.place(name, memory) for name in list(leaves)}
        if staging is not None:
            values |= staging.carry_out(_filler(ckpt, made, report))
    return values


def _filler(ckpt: Checkpoint, made: Plan, report: Progress | None) -> Any:
    """How a batch of pieces is read, with progress over all batches."""
    done = 0

    def read(blocks: list[Block], memory: Any) -> None:
        nonlocal done
        start = done

        def within(now: int, total: int) -> None:
            nonlocal done
            done = start + now
            if report is not None:
                report(done, max(done, made.nbytes))

        fill(blocks, ckpt.specs, ckpt, memory, progress=within)

    return read


def _split(made: Plan, where: Placements, max_host_bytes: int | None) -> tuple[list[Block], list[Block], int]:
    """The blocks whose leaves are made in host memory, those that are staged, and what may be in flight for them."""
    if max_host_bytes is None and all(map(_on_host, where.values())):
        return list(made.blocks), [], 0
    # Terms of a sum have to meet somewhere: such leaves, biases for the most part, are made whole.
    summed = {block.leaf for block in made.blocks if len(block.terms) > 1}
    held = [block for block in made.blocks if block.leaf in summed]
    staged = [block for block in made.blocks if block.leaf not in summed]
    return held, staged, DEFAULT_HOST_NBYTES if max_host_bytes is None else max_host_bytes


def _on_host(sharding: Sharding | None) -> bool:
    """Whether arrays of this sharding lie in the host's own memory."""
    devices = jax.local_devices()[:1] if sharding is None else list(sharding.addressable_devices)
    return all(device.platform == "cpu" for device in devices)


def _leaves(made: Plan, blocks: list[Block]) -> dict[str, Spec]:
    """The leaves that `blocks` fill."""
    return {name: made.leaves[name] for name in dict.fromkeys(block.leaf for block in blocks)}
