"""The host's memory: what a load may have in flight; and whether what it needs is there, before a weight is read."""

from __future__ import annotations

import resource
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from bridge._errors import PlanError
from bridge._text import human_nbytes, quote

DEFAULT_HOST_NBYTES = 1 << 30
"""What may be in flight where nothing says otherwise, in bytes."""


def in_flight(max_host_bytes: int | None, default: int = DEFAULT_HOST_NBYTES) -> int:
    """What may be in flight. **Raises:** `PlanError` for what is no number of bytes."""
    if max_host_bytes is None:
        return default
    if not isinstance(max_host_bytes, int) or max_host_bytes < 1:
        raise PlanError(
            f"max_host_bytes {max_host_bytes!r} is no number of bytes: give a whole number, such as 1 << 30"
        )
    return max_host_bytes


def check_memory(needed_nbytes: int, source: str) -> None:
    """**Raises:** `PlanError` where `needed_nbytes` are more than the host can give."""
    available = available_nbytes()
    if available is not None and needed_nbytes > available:
        raise PlanError(
            f"loading {quote(source)} needs {human_nbytes(needed_nbytes)} of memory at once, "
            f"{human_nbytes(available)} are available: free some, load in a narrower dtype (dtype='bf16'), "
            "or shard over more processes"
        )


@contextmanager
def taking(needed_nbytes: int, source: str) -> Generator[None]:
    """For code that only takes memory. **Raises:** `PlanError` where the system does not give it after all."""
    try:
        yield
    except (MemoryError, OSError) as error:  # the allocator's, or that of an anonymous mapping
        raise PlanError(
            f"loading {quote(source)} needs {human_nbytes(needed_nbytes)} of memory at once, and the system does not "
            "give it: free some, load in a narrower dtype (dtype='bf16'), or shard over more processes"
        ) from error


def available_nbytes() -> int | None:
    """What this process may still take, by the system, its control group and its limits; `None` where nothing says."""
    found = [nbytes for nbytes in (_system(), _group(), _limit()) if nbytes is not None]
    return min(found) if found else None


def _system() -> int | None:
    try:
        fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        return sum(int(fields[name].split()[0]) * 1024 for name in ("MemAvailable", "SwapFree"))
    except (OSError, KeyError, ValueError):
        return None  # no Linux


def _group() -> int | None:
    root = Path("/sys/fs/cgroup")
    try:
        most, used = (int((root / name).read_text()) for name in ("memory.max", "memory.current"))
    except (OSError, ValueError):
        return None  # no group, or no limit: "max"
    return most - used


def _limit() -> int | None:
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft == resource.RLIM_INFINITY:
        return None
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (OSError, ValueError):
        return None
    return soft - pages * resource.getpagesize()
