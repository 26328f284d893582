"""How much of the leaves may be made at a time, in memory of a bounded size."""

from __future__ import annotations

from collections.abc import Iterable

from bridge.mapping.block import Block
from bridge.stream.chunk import CHUNK
from bridge.stream.run import THREADS


def room(max_nbytes: int) -> int:
    """What is left of `max_nbytes` for leaves: readers turn and cast in memory of their own."""
    return max(max_nbytes - THREADS * CHUNK, max_nbytes // 2)


def part_nbytes(blocks: Iterable[Block], limit: int) -> int:
    """How large a part of one leaf may be, at most `limit`: of a sum all terms are in memory at once."""
    terms = max((len(block.terms) for block in blocks), default=1)
    return limit if terms == 1 else min(limit, CHUNK // (terms + 2))
