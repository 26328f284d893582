"""Leaves on their way into a file: made in their order, a part at a time, in memory of a bounded size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import prod

import numpy as np

from bridge.mapping.block import filled
from bridge.mapping.indexmap import row_major
from bridge.place.kept import KeptPart
from bridge.planning.plan import Plan
from bridge.source.checkpoint import Checkpoint
from bridge.stream.batches import Batches
from bridge.stream.buffers import batches, empty, room
from bridge.stream.jobs import fill
from bridge.stream.ties import without_same_bytes

Report = Callable[[int, int], None]
FlatElements = tuple[str, int, np.ndarray]
"""A leaf's name, the first of its elements, and they as a flat array that holds until the next one is asked for."""


def leaves_of(
    ckpt: Checkpoint,
    plan: Plan,
    order: Sequence[str],
    kept: Mapping[str, KeptPart],
    *,
    max_nbytes: int,
    report: Report | None,
) -> Iterator[FlatElements]:
    """The leaves of `order` that keys fill; `kept` is what those have that keys fill in part.

    What they are made in, and what readers turn and cast in, is `max_nbytes` together at most; but a sum whose terms
    run in different orders is made whole.

    **Raises:** `CheckpointError` for what reading finds.
    """
    limit = room(max_nbytes, ckpt.parallel)
    leaves = {leaf: plan.leaves[leaf] for leaf in filled(plan.blocks)}
    made = Batches(without_same_bytes(plan.blocks, ckpt.specs), leaves)
    memory = empty((0,), np.dtype(np.uint8))
    done = 0
    parts = (
        part
        for leaf in order
        if leaf in leaves
        for part in made.parts(leaf, tuple(map(range, leaves[leaf].shape)), limit)
    )
    for batch in batches(parts, limit):
        needed = sum(part.nbytes for part in batch)
        if memory.nbytes < needed:
            del memory
            memory = empty((max(needed, min(limit, sum(spec.nbytes for spec in leaves.values()))),), np.dtype("u1"))
        arrays: dict[str, np.ndarray] = {}
        at = 0
        for part in batch:
            nbytes = prod(part.shape) * part.spec.dtype.itemsize
            arrays[part.name] = memory[at : at + nbytes].view(part.spec.dtype).reshape(part.shape)
            at += part.nbytes
        for part in batch:
            if part.leaf in kept:
                kept[part.leaf].write(part.box, arrays[part.name])
        start = done

        def within(now: int, total: int, start: int = start) -> None:
            nonlocal done
            done = start + now
            if report is not None:
                report(done, max(done, total, plan.nbytes))

        fill(made.of(batch), ckpt.specs, ckpt, arrays, progress=None if report is None else within)
        for part in batch:
            first = sum(r.start * n for r, n in zip(part.box, row_major(part.spec.shape), strict=True))
            yield part.leaf, first, arrays[part.name].reshape(-1)
