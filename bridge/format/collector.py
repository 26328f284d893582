"""Making many objects at once."""

from __future__ import annotations

import gc
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def collector_off(many: bool) -> Generator[None]:
    """For code that makes `many` objects, all live: the garbage collector, looking for dead ones, doubles its time."""
    if not many or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
