"""Leaves on their way into a file: made in their order, a part at a time, in memory of a bounded size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import prod
from typing import NamedTuple

import numpy as np

from bridge._values import replace
from bridge.mapping.block import Block
from bridge.mapping.indexmap import row_major
from bridge.mapping.shard import Grid, parts, shard
from bridge.planning.plan import Plan
from bridge.source.checkpoint import Checkpoint
from bridge.stream.budget import part_nbytes, room
from bridge.stream.buffers import empty
from bridge.stream.fill import fill

_ALIGNED = 64
Report = Callable[[int, int], None]
Flat = tuple[str, int, np.ndarray]
"""A leaf's name, the first of its elements, and they as a flat array that holds until the next one is asked for."""


class _Part(NamedTuple):
    """Elements of a leaf that lie side by side: from where, and in which box."""

    leaf: str
    first: int
    grid: Grid
    nbytes: int


def leaves_of(
    ckpt: Checkpoint, plan: Plan, order: Sequence[str], *, max_nbytes: int, report: Report | None
) -> Iterator[Flat]:
    """The leaves of `order` that keys fill.

    What they are made in, and what readers turn and cast in, is `max_nbytes` together at most; but a sum whose terms
    run in different orders is made whole.

    **Raises:** `CheckpointError` for what reading finds.
    """
    blocks: dict[str, list[Block]] = {}
    for block in plan.blocks:
        blocks.setdefault(block.leaf, []).append(block)
    limit = room(max_nbytes, ckpt.parallel)
    memory = empty((0,), np.dtype(np.uint8))
    done = 0
    for batch in _batches(plan, [leaf for leaf in order if leaf in blocks], blocks, limit):
        needed = sum(map(_room, batch))
        if memory.nbytes < needed:
            del memory
            memory = empty((max(needed, min(limit, sum(plan.leaves[leaf].nbytes for leaf in blocks))),), np.dtype("u1"))
        arrays: dict[str, np.ndarray] = {}
        cut: list[Block] = []
        at = 0
        for number, part in enumerate(batch):
            dtype = plan.leaves[part.leaf].dtype
            arrays[f"{part.leaf}@{number}"] = memory[at : at + part.nbytes].view(dtype).reshape(part.grid.shape)
            at += _room(part)
            for block in blocks[part.leaf]:
                cut += [replace(b, leaf=f"{part.leaf}@{number}") for b in _within(block, part.grid)]
        start = done

        def within(now: int, total: int, start: int = start) -> None:
            nonlocal done
            done = start + now
            if report is not None:
                report(done, max(done, total, plan.nbytes))

        fill(cut, ckpt.specs, ckpt, arrays, progress=None if report is None else within)
        for part, array in zip(batch, arrays.values(), strict=True):
            yield part.leaf, part.first, array.reshape(-1)


def _batches(
    plan: Plan, leaves: Sequence[str], blocks: Mapping[str, Sequence[Block]], limit: int
) -> Iterator[list[_Part]]:
    """All leaves in parts, as many at a time as have room in `limit` bytes."""
    batch: list[_Part] = []
    for leaf in leaves:
        spec = plan.leaves[leaf]
        whole = tuple(map(range, spec.shape))
        most = max(part_nbytes(blocks[leaf], limit) // spec.dtype.itemsize, 1)
        most = prod(spec.shape) if any(block.uncut for block in blocks[leaf]) else most
        for box in parts(whole, most):
            first = sum(r.start * n for r, n in zip(box, row_major(spec.shape), strict=True))
            shape = tuple(map(len, box))
            grid = Grid(tuple(r.start for r in box), (1,) * len(box), shape)
            part = _Part(leaf, first, grid, prod(shape) * spec.dtype.itemsize)
            if batch and sum(map(_room, batch)) + _room(part) > limit:
                yield batch
                batch = []
            batch.append(part)
    if batch:
        yield batch


def _room(part: _Part) -> int:
    """What a part takes with the alignment of the next one."""
    return -(-part.nbytes // _ALIGNED) * _ALIGNED


def _within(block: Block, grid: Grid) -> Sequence[Block]:
    found = shard(block, grid)
    return [block] if found is None else found
