"""Two processes that load together, or mean to; a program for `test_failures.py`. The last thing is death."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

import bridge
from tests.place.failing import attempt
from tests.place.processes import joined, wait

LIKE = {name: jax.ShapeDtypeStruct((64, 64), np.float32) for name in "wv"}


def once(action: Callable[[], Any]) -> Callable[[int, int], None]:
    """In the midst of a load, that is after its first piece: do something."""
    left = [action]
    return lambda *_: left.pop()() if left else None


def main(arguments: list[str]) -> None:
    rank, count, (folder,) = joined(arguments)
    mesh = Mesh(np.array(jax.devices()).reshape(count), "a")
    one, other = (Path(folder, name, "model.safetensors") for name in ("one", "other"))
    rules, specs = ["w -> w", "v -> v"], {"w": P("a"), "v": P("a")}

    def load(path: Path, rules: list[str] = rules, specs: dict[str, P] = specs, **options: Any) -> None:
        loaded = bridge.load(path, LIKE, rules, sharding=(mesh, specs), **options)
        expected = np.load(path.with_name("w.npy"))
        for shard in loaded["w"].addressable_shards:
            assert np.array_equal(shard.data, expected[shard.index])

    mine = (one, other)[rank]
    if rank == 0:
        # Both are at work at once: it has planned, and reads when the other one comes.
        attempt("values", lambda: load(mine, progress=once(wait)))
        wait()
    else:
        wait()
        attempt("values", lambda: load(mine))
        wait()
    attempt("equal", lambda: load(one))
    swapped = [["w -> w", "v -> v"], ["w -> v", "v -> w"]][rank]
    for what, options in (("rules", {"rules": swapped}), ("shardings", {"specs": [specs, {"w": P("a")}][rank]})):
        if rank == 1:
            wait()
        attempt(what, lambda options=options: load(one, progress=once(wait) if rank == 0 else None, **options))
        wait()
    attempt("own", lambda: bridge.load(mine, LIKE))  # arrays of each process' own may be whatever they like
    wait()
    attempt("alone", lambda: load(mine))  # one loads and is done before the other one comes
    wait()
    die = once(lambda: os.kill(os.getpid(), signal.SIGKILL))
    attempt("death", lambda: load(one, progress=once(wait) if rank == 0 else die))
    os._exit(0)  # JAX would wait for the dead


if __name__ == "__main__":
    main(sys.argv[1:])
