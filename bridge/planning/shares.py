"""How the lines of a report are shared among the kinds of problems, so that none hides the others."""

from __future__ import annotations

from collections.abc import Sequence


def shares(counts: Sequence[int], most: int) -> list[int]:
    """How many problems of each kind are shown: alike for all, and what one does not need goes to the others."""
    found = [0] * len(counts)
    left = min(most, sum(counts))
    while left:
        open_ = [n for n, count in enumerate(counts) if found[n] < count]
        each = max(left // len(open_), 1)
        for n in open_[:left]:
            more = min(each, counts[n] - found[n])
            found[n] += more
            left -= more
    return found
