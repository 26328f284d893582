"""Bytes between those that are wanted, as columns of a matrix have them: read over, or skipped.

A request costs what reading some tens of kilobytes does, more on a network. So small gaps are read over, but never more
than eight times what is needed, where a disk could read less: it reads whole pages.
"""

from __future__ import annotations

_LONGEST = 64 << 10
_SHARE = 8
_PAGE = 4 << 10


def worth_skipping(gap_nbytes: int, run_nbytes: int) -> bool:
    """Whether gaps of `gap_nbytes` between runs of `run_nbytes` are worth a request for every run."""
    return gap_nbytes > max(_PAGE, min((_SHARE - 1) * run_nbytes, _LONGEST))
