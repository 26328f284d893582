"""Names that are close to a wrong one."""

from __future__ import annotations

import difflib
import heapq
from collections.abc import Iterable

_LIMIT = 300  # difflib is slow: it looks only at the names that share most with the wrong one


def closest(name: str, names: Iterable[str], count: int = 3) -> list[str]:
    """Up to `count` of `names` that look like `name`, the closest first. Quick for 100,000 names."""
    segments = set(name.split("."))

    def shared(other: str) -> tuple[int, int]:
        return len(segments.intersection(other.split("."))), -abs(len(other) - len(name))

    candidates = heapq.nlargest(_LIMIT, (n for n in names if len(n) <= 2 * len(name) + 8), key=shared)
    return difflib.get_close_matches(name[:500], candidates, n=count, cutoff=0.6)
