"""How much of the leaves may be made at a time, in memory of a bounded size."""

from __future__ import annotations

from collections.abc import Iterable

from bridge.mapping.block import Block
from bridge.stream.chunk import CHUNK
from bridge.stream.run import THREADS


def readers_nbytes(parallel: int | None) -> int:
    """What readers turn and cast in; where `parallel` of them read over a network, also what a store hands over."""
    return THREADS * CHUNK if parallel is None else 2 * parallel * CHUNK


def room(max_nbytes: int, parallel: int | None) -> int:
    """What is left of `max_nbytes` for leaves, beside what readers need."""
    return max(max_nbytes - readers_nbytes(parallel), max_nbytes // 2)


def part_nbytes(blocks: Iterable[Block], limit: int) -> int:
    """How large a part of one leaf may be, at most `limit`: of a sum all terms are in memory at once."""
    terms = max((len(block.terms) for block in blocks), default=1)
    return limit if terms == 1 else min(limit, CHUNK // (terms + 2))
