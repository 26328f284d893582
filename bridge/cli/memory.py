"""How much memory this process has taken, for the demo."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_nbytes() -> int:
    """The most memory that the process has had, since it began or since `forget_peak` worked."""
    return _status("VmHWM") or _max_rss()


def resident_nbytes() -> int:
    """What it has now; where the system does not say, the most that it has had."""
    return _status("VmRSS") or _max_rss()


def forget_peak() -> None:
    """Let the peak be counted anew from here. Only Linux can; elsewhere the peak stays that of the whole process."""
    try:
        _CLEAR.write_text("5")
    except OSError:
        pass


def _status(field: str) -> int | None:
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), None)


def _max_rss() -> int:
    # kilobytes on Linux, bytes on macOS
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
