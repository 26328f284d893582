"""Several requests at once, for those who wait for a network."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def at_once(work: Callable[[T], R], items: Iterable[T], threads: int) -> list[R]:
    """`work` for each of `items`, from so many threads, in their order.

    **Raises:** the first error; what has not begun by then does not begin.
    """
    with ThreadPoolExecutor(threads, "bridge-source") as pool:
        try:
            return list(pool.map(work, items))
        except BaseException:  # an interrupt too would else wait for everything that is queued
            pool.shutdown(cancel_futures=True)
            raise
