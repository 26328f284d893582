"""The memory of a process, and of the machine before it is measured."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_SPARE = 256 << 20

# Faults memory in and gives it back. On a virtual machine the host takes freed memory away, within a fraction of a
# second, and whoever touches it next pays for fetching it: 0.1 to 2.7 s a gigabyte. This process pays in advance.
_FAULT_IN = """
import mmap, sys
nbytes = int(sys.argv[1])
block = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
block.madvise(mmap.MADV_HUGEPAGE)
for start in range(0, nbytes, 4096):
    block[start] = 1
"""


def free_nbytes() -> int:
    """Memory that a process could still get."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))


def fault_in(nbytes: int) -> None:
    """Somewhat more memory than a process will need, touched and released: to be called just before it is measured."""
    nbytes = min(nbytes + nbytes // 8 + _SPARE, free_nbytes() * 9 // 10)
    subprocess.run([sys.executable, "-S", "-c", _FAULT_IN, str(nbytes)], check=True)


def memory() -> dict[str, int]:
    """The memory of the process itself in bytes: `RssAnon`, `RssFile`, `VmHWM` …"""
    return parse(Path("/proc/self/status").read_text())


def parse(status: str) -> dict[str, int]:
    """The lines of `/proc/PID/status` that speak of memory."""
    wanted = ("RssAnon", "RssFile", "RssShmem", "VmHWM", "VmRSS")
    rows = (line.split() for line in status.splitlines() if line.startswith(wanted))
    return {name.rstrip(":"): int(kib) << 10 for name, kib, _ in rows}
