"""Carries out a proven plan: memory, reads, device arrays. Joins `stream` and `place`."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.sharding import Sharding

from bridge.mapping.block import Block, filled
from bridge.mapping.template import Spec
from bridge.place.work import HostBuffers, check_memory, in_default_memory, in_flight, taking
from bridge.planning.plan import Plan
from bridge.source.checkpoint import Checkpoint
from bridge.stream.buffers import empty, taken_nbytes
from bridge.stream.jobs import fill, located, sizes

if TYPE_CHECKING:
    from bridge.api.progress import Progress
    from bridge.place.kept import KeptPart
    from bridge.place.staged import Fill, Staging

Placements = Mapping[str, Sharding | None]


def predicted(ckpt: Checkpoint, made: Plan, where: Placements, max_host_bytes: int | None) -> Plan:
    """The plan with the bytes that this process reads, and the most host memory that it needs at once.

    This memory holds values that are read and not yet placed. Leaves in host memory are placed after all reads, so they
    count, except for those that `_mapped` leaves in their file. Python's objects, some kilobytes a leaf, do not.
    """
    if not made.ok:
        return made
    from bridge.stream.buffers import readers_nbytes  # a load predicts nothing

    held, staged, budget = _split(made, where, max_host_bytes)
    blocks = _to_read(ckpt, made)
    work = HostBuffers(blocks, held, where)
    # What is still on the Hub is not fetched to be looked at; it counts as if it were read.
    in_files = _mapped(ckpt, work) if ckpt.absent_nbytes(ckpt.files) == 0 else {}
    found = sizes(work.blocks, ckpt.specs)
    nbytes, beside = found.nbytes, max(sum(found.scratch_nbytes), readers_nbytes(ckpt.parallel))
    if staged:
        scratch_nbytes = sum(found.scratch_nbytes) if ckpt.parallel is None else beside
        staging = _staging(blocks, staged, where, budget, ckpt.parallel, {})
        for batch in staging.batches():
            found = sizes(staging.made.of(batch), ckpt.specs)
            nbytes += found.nbytes
            scratch_nbytes = max(scratch_nbytes, sum(found.scratch_nbytes))
        beside = max(budget, staging.max_nbytes + scratch_nbytes)
    arrays = (spec.nbytes for name, spec in work.buffers.items() if name not in in_files)
    return replace(made, nbytes=nbytes, peak_nbytes=sum(map(taken_nbytes, arrays)) + beside)


def _to_read(ckpt: Checkpoint, made: Plan) -> Sequence[Block]:
    """The blocks of the plan, without ties that have nothing to compare."""
    if not any(block.tie for block in made.blocks):
        return made.blocks
    from bridge.stream.ties import without_same_bytes  # few plans have ties

    return without_same_bytes(made.blocks, ckpt.specs)


def read_leaves(
    ckpt: Checkpoint,
    made: Plan,
    where: Placements,
    max_host_bytes: int | None,
    progress: Progress | bool | None,
    *,
    mmap: bool,
    kept: Mapping[str, KeptPart],
) -> dict[str, jax.Array]:
    """Read and place every leaf that the plan fills. `kept`: the old values of leaves that it fills in part.

    **Raises:** `CheckpointError` for what reading finds; `PlanError` for memory that cannot be had.
    """
    held, staged, budget = _split(made, where, max_host_bytes)
    chosen = _to_read(ckpt, made)
    work = HostBuffers(chosen, held | {name: made.leaves[name] for name in made.fills}, where)
    staging = _staging(chosen, staged, where, budget, ckpt.parallel, kept) if staged else None
    fetched = _fetch(ckpt, work, staging, made.nbytes, progress)
    memory = _mapped(ckpt, work) if mmap else {}
    blocks = _without(work.blocks, memory) if memory else work.blocks
    needed = work.nbytes - sum(a.nbytes for a in memory.values()) + (budget + staging.host_nbytes if staging else 0)
    check_memory(needed, ckpt.source)
    with taking(needed, ckpt.source):
        memory |= {name: empty(spec.shape, spec.dtype) for name, spec in work.buffers.items() if name not in memory}
    for name, value in made.fills.items():
        for buffer in work.memory(name, memory):
            buffer.fill(value)
    for name in kept.keys() & held.keys():
        for grid, buffer in work.parts(name, memory):
            kept[name].write_grid(grid, buffer)
    with _reporting(progress, fetched) as report, _ties_named(made):
        total = 0 if report is None or staging is None else predicted(ckpt, made, where, max_host_bytes).nbytes
        read = _reader(ckpt, total, report)
        read(blocks, memory)
        # A device array takes its memory over: no view of it may stay behind.
        values: dict[str, Any] = work.place(memory)
        if staging is not None:
            values |= staging.carry_out(read, partial(taking, needed, ckpt.source))
    return values


def _reporting(progress: Progress | bool | None, before: int) -> AbstractContextManager[Progress | None]:
    if progress is None or progress is False:
        return nullcontext()
    from bridge.api.progress import reporting  # most loads are silent

    return reporting(progress, before=before)


def _ties_named(made: Plan) -> AbstractContextManager[None]:
    if not any(block.tie for block in made.blocks):
        return nullcontext()
    from bridge.api.ties import ties_named  # few plans have ties

    return ties_named(made)


def _mapped(ckpt: Checkpoint, work: HostBuffers) -> dict[str, np.ndarray]:
    """The leaves whose memory is the mapped files of a converted checkpoint."""
    if not is_converted(ckpt):
        return {}
    from bridge.stream.mapped import mapped  # converted checkpoints alone

    return mapped(work.blocks, ckpt.specs, ckpt, work.single)


def _staging(*arguments: Any) -> Staging:
    from bridge.place.staged import Staging  # few loads need it

    return Staging(*arguments)


def _fetch(
    ckpt: Checkpoint, work: HostBuffers, staging: Staging | None, after: int, progress: Progress | bool | None
) -> int:
    """Download the files that this process reads, and no others, from the Hub; returns how many bytes they have."""
    if ckpt.absent_nbytes(ckpt.files) == 0:
        return 0
    blocks = list(work.blocks)
    if staging is not None:
        for batch in staging.batches():
            blocks += staging.made.of(batch)
    from bridge.api.progress import fetch  # for what is on the Hub and not in its cache

    numbers = located(ckpt.specs)
    keys = [numbers(term.keys) for block in blocks for term in block.terms]
    files = ckpt.specs.files_of(np.concatenate(keys)) if keys else ()
    return fetch(ckpt, files, progress, after=after)


def _reader(ckpt: Checkpoint, nbytes: int, report: Progress | None) -> Fill:
    """A function that reads blocks, with progress over all batches. `nbytes`: the total of several batches."""
    done = 0

    def read(blocks: Sequence[Block], memory: Mapping[str, np.ndarray]) -> None:
        start = done

        def within(now: int, total: int) -> None:
            nonlocal done
            done = start + now
            if report is not None:
                report(done, max(done, total, nbytes))

        fill(blocks, ckpt.specs, ckpt, memory, progress=None if report is None else within)

    return read


def _without(blocks: Sequence[Block], names: Container[str]) -> list[Block]:
    """The rows of blocks whose memory is not among `names`."""
    found: list[Block] = []
    for block in blocks:
        kept = np.array([name not in names for name in block.leaves], bool)
        if kept.all():
            found.append(block)
        elif kept.any():
            found.append(block.at(np.flatnonzero(kept)))
    return found


LeafSpecs = dict[str, Spec]


def _split(made: Plan, where: Placements, max_host_bytes: int | None) -> tuple[LeafSpecs, LeafSpecs, int]:
    """The leaves that are made in host memory, those that are staged, and the bytes that staging may use at once."""
    names = set(filled(made.blocks))
    leaves = {name: spec for name, spec in made.leaves.items() if name in names}
    budget = in_flight(max_host_bytes, leaves)
    if max_host_bytes is None and all(map(_on_host, where.values())):
        return leaves, {}, 0
    whole = set(filled(block for block in made.blocks if block.needs_whole))
    held = {n: spec for n, spec in leaves.items() if n in whole or not in_default_memory(where[n])}
    return held, {n: spec for n, spec in leaves.items() if n not in held}, budget


def _on_host(sharding: Sharding | None) -> bool:
    """Whether arrays of this sharding lie in the host's own memory."""
    devices = jax.local_devices()[:1] if sharding is None else list(sharding.addressable_devices)
    return all(device.platform == "cpu" for device in devices)


def is_converted(ckpt: Checkpoint) -> bool:
    """Whether a checkpoint is of the converted form."""
    if ckpt.metadata.keys() <= {"format"}:
        return False  # what most files say, and then the room of that form is not needed
    from bridge.converted import is_converted

    return is_converted(ckpt.metadata)
