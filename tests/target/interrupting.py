"""Saves that Ctrl-C ends at random moments, in a program that goes on: python -m tests.target.interrupting FOLDER.

Saved, sharded, converted in turn. The last error is kept with its frames, as a notebook keeps it.
"""

from __future__ import annotations

import _thread
import gc
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np

import bridge
from tests.save.files import read

MODEL = {f"layers.{n}.weight": np.full((64, 64), n, np.float32) for n in range(4)}


def descriptors(folder: Path) -> list[str]:
    """The files of a folder that are open."""
    found: list[str] = []
    for number in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{number}"))
        except FileNotFoundError:
            continue  # the list's own
    return sorted(name for name in found if str(folder) in name)


def left(target: Path) -> list[str]:
    """The stages that stand in a folder."""
    return sorted(path.name for path in target.iterdir() if path.name.startswith(".eqx-bridge"))


def save(target: Path, number: int) -> bridge.SaveReport:
    """A save of one kind after the other."""
    if number % 3 == 2:
        return bridge.convert(target.parent / "source", target, None, "** -> **", overwrite=True)
    return bridge.save(MODEL, target, overwrite=True, max_shard_size=["5GB", 1][number % 3])


def interrupted(target: Path, number: int, after: float) -> BaseException | None:
    """A save that Ctrl-C ends after some seconds, unless it is done before."""
    timer = threading.Timer(after, _thread.interrupt_main)
    try:
        try:
            timer.start()
            save(target, number)
        finally:
            timer.join()
            time.sleep(0.001)  # where an interrupt arrives that came too late
    except KeyboardInterrupt as error:
        return error
    return None


def main() -> None:
    folder, rng = Path(sys.argv[1]), random.Random(int(sys.argv[2]))
    target, caught = folder / "target", 0
    bridge.save(MODEL, folder / "source")
    for number in range(3):
        save(target, number)
    kept: BaseException | None = None
    for number in range(60):
        kept = interrupted(target, number, rng.uniform(0, 0.02)) or kept
        caught += kept is not None
        read(target)
    report = save(target, 0)
    assert caught > 20, caught
    assert not left(target), left(target)
    assert {path.name for path in target.iterdir()} == set(report.files)
    kept = None
    gc.collect()
    assert not descriptors(folder), descriptors(folder)
    print("nothing left")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background process ignores it
    main()
