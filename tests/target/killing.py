"""Writers killed with SIGKILL at random moments, over and over one target: python -m tests.target.killing --kills 200

One process imports everything once and forks a writer whenever it is told to; each writer saves in a loop until it is
killed. Checkpoint number `n` holds `n` in every element, under keys that depend on `n`: a reader can tell whether what
it finds is one checkpoint, whole, and not an older one than it has seen before.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import bridge

LIMITS = ["5GB", "100KB", "20KB", 1]


def checkpoint(number: int) -> dict[str, np.ndarray]:
    return {f"layers.{n}.weight": np.full((64, 64 + n), number, np.float32) for n in range(1 + number % 7)}


def write(target: Path, number: int) -> bridge.SaveReport:
    """Write checkpoint `number`: saved in one file or in many, converted, or reverted."""
    if number % 3 == 0:
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            bridge.save(checkpoint(number), folder, "** -> **")
            return bridge.convert(folder, target, overwrite=True)
    limit = LIMITS[number % len(LIMITS)]
    if number % 5 == 1:
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            bridge.save(checkpoint(number), f"{folder}/saved", "** -> **", max_shard_size=limit)
            bridge.convert(f"{folder}/saved", f"{folder}/converted")
            return bridge.revert(f"{folder}/converted", target, overwrite=True)
    return bridge.save(checkpoint(number), target, "** -> **", max_shard_size=limit, overwrite=True)


def found(target: Path) -> int:
    """Which checkpoint stands in the target; fails if it is none, or not whole."""
    with bridge.open(target) as ckpt:
        number = int(ckpt["layers.0.weight"][0, 0])
        expected = checkpoint(number)
        assert set(ckpt) == set(expected), (number, set(ckpt))
        for key, array in expected.items():
            assert ckpt[key].tobytes() == array.tobytes(), (number, key)
    return number


def writers() -> None:
    """Fork a writer for each line `TARGET NUMBER` of stdin; print its process id."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), 0)  # whatever is imported late is imported now
    for line in sys.stdin:
        target, number = line.rsplit(" ", 1)
        pid = os.fork()
        if pid == 0:
            count = int(number)
            while True:
                count += 1
                write(Path(target), count)
        print(pid, flush=True)
        os.waitpid(pid, 0)
        print("gone", flush=True)


@contextlib.contextmanager
def forking() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.target.killing", "--writers"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(60)
        assert process.stdout is not None
        process.stdout.close()


def kill(process: subprocess.Popen[str], target: Path, number: int, after: float) -> None:
    """Start a writer over checkpoint `number` and kill it `after` seconds."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{target} {number}\n")
    process.stdin.flush()
    pid = int(process.stdout.readline())
    time.sleep(after)
    os.kill(pid, signal.SIGKILL)
    assert process.stdout.readline() == "gone\n"


def run(folder: Path, kills: int, seed: int, longest: float = 0.12) -> str:
    """Kill `kills` writers, each at a random moment within `longest` seconds; says what was seen."""
    rng, target = random.Random(seed), folder / "target"
    write(target, 0)
    number = cut = saves = 0
    with forking() as process:
        for n in range(kills):
            kill(process, target, number, rng.uniform(0, longest))
            now = found(target)
            assert now >= number, f"kill {n}: checkpoint {now} stands where {number} stood"
            saves += now - number
            number = now
            cut += any(target.glob(".eqx-bridge-*"))
    report = write(target, number + 1)
    assert found(target) == number + 1
    left = {path.name for path in target.iterdir()} - set(report.files)
    assert not left, f"left over: {left}"
    return f"{kills} kills, {cut} in the midst of a save; {saves} saves committed; nothing lost, nothing left over"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--writers", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.writers:
        return writers()
    with tempfile.TemporaryDirectory() as folder:
        print(run(Path(folder), arguments.kills, arguments.seed))
    return None


if __name__ == "__main__":
    main()
