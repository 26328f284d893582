"""Loads and saves in one process, over and over: nothing grows. python -m tests.load.soaking --rounds 1000

A round loads a checkpoint of 2 MiB into a stacked, cast and transposed model, loads it mapped, reads values one by one,
saves in one file or in many over the last save, and fails to load what is damaged. Now and then it converts and reverts.
"""

from __future__ import annotations

import argparse
import gc
import os
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import bridge
from tests.save.files import write

ROWS = np.arange(4 * 256 * 512, dtype=np.float32).reshape(4, 256, 512)
LIKE = {"w": jax.ShapeDtypeStruct((4, 512, 256), jnp.bfloat16), "b": jax.ShapeDtypeStruct((4, 512), jnp.float32)}
RULES = ["l.{l}.w [o i] -> w [l i o]", "l.{l}.b -> b"]


class Used(NamedTuple):
    """What the process holds: anonymous memory in bytes, descriptors, threads, objects that the collector sees."""

    nbytes: int
    descriptors: int
    threads: int
    objects: int

    @classmethod
    def now(cls) -> Used:
        gc.collect()
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        nbytes = int(status["RssAnon"].split()[0]) * 1024
        return cls(nbytes, len(os.listdir("/proc/self/fd")), threading.active_count(), len(gc.get_objects()))


def build(folder: Path) -> None:
    tensors = {f"l.{n}.w": ROWS[n] for n in range(4)} | {f"l.{n}.b": ROWS[n, 0] for n in range(4)}
    raw = write(folder / "model.safetensors", tensors).read_bytes()
    (folder / "damaged").mkdir()
    (folder / "damaged" / "model.safetensors").write_bytes(raw[:-1])
    bridge.convert(folder, folder / "converted", LIKE, RULES)


def once(folder: Path, number: int) -> None:
    """One round."""
    plan = bridge.plan(folder, LIKE, RULES)
    model = bridge.load(folder, LIKE, plan)
    mapped = bridge.load(folder / "converted", LIKE)
    assert all(bool((model[name] == mapped[name]).all()) for name in LIKE)
    with bridge.open(folder) as ckpt:
        assert ckpt["l.3.b"].tobytes() == ROWS[3, 0].tobytes()
    limit = "5GB" if number % 2 else "1MB"
    bridge.save(model, folder / "saved", plan, max_shard_size=limit, overwrite=True)
    assert not bridge.diff(folder, folder / "saved").only_a
    try:
        bridge.load(folder / "damaged", LIKE, RULES)
    except bridge.CheckpointError:
        pass
    if number % 10 == 0:
        bridge.convert(folder, folder / "again", LIKE, RULES, overwrite=True)
        bridge.revert(folder / "again", folder / "back", overwrite=True)


def run(folder: Path, rounds: int, *, before: int) -> tuple[Used, Used]:
    """What is in use after `before` rounds and after all of them, `before` included."""
    build(folder)
    start = Used.now()
    for number in range(rounds):
        once(folder, number)
        if number + 1 == before:
            start = Used.now()
    return start, Used.now()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=1000)
    arguments = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        start, stop = run(Path(folder), arguments.rounds, before=max(arguments.rounds // 10, 1))
    print(f"{arguments.rounds:,} rounds in {time.monotonic() - began:.0f} s")
    for name, first, last in zip(Used._fields, start, stop, strict=True):
        print(f"{name}: {first:,} after a tenth, {last:,} at the end, {last - first:+,}")


if __name__ == "__main__":
    main()
