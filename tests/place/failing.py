"""Two processes that save together, and what goes wrong; a program for `test_failures.py`. The last thing is death."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

import bridge
import bridge.api.together
from bridge.place import save_group
from tests.place.processes import joined, wait


def attempt(what: str, action: Callable[[], Any]) -> None:
    """Do it, and say which error came of it."""
    start = time.monotonic()
    try:
        action()
    except bridge.BridgeError as error:
        text = str(error).replace("\n", " ")
        print(f"{what}: {type(error).__name__}: {text} [{time.monotonic() - start:.0f} s]", flush=True)
    else:
        print(f"{what}: done", flush=True)


def main(arguments: list[str]) -> None:
    rank, count, (folder,) = joined(arguments)
    sharding = Mesh(np.array(jax.devices()).reshape(count), "a"), {"w": P("a"), "n": P("a")}
    like = {"w": jax.ShapeDtypeStruct((64, 4096), np.float32), "n": jax.ShapeDtypeStruct((64,), np.int32)}
    source = Path(folder, "model.safetensors")
    plan = bridge.plan(source, like, sharding=sharding)
    model = bridge.load(source, like, plan)
    out = Path(folder, "out")
    bridge.save(model, out, plan, max_shard_size="400KB")
    attempt("again", lambda: bridge.save(model, out, plan))
    attempt("metadata", lambda: bridge.save(model, out, plan, metadata={"by": str(rank)}, overwrite=True))
    large = np.full(32, 1000 * rank, np.int32)
    spread = model | {"n": jax.make_array_from_process_local_data(model["n"].sharding, large)}
    attempt("value", lambda: bridge.save(spread, out, plan, overwrite=True))
    two = {"w": like["w"], "v": like["w"]}
    copied = bridge.plan(
        source,
        two,
        ["w -> v ; copy=true", "w -> w"],
        sharding=(sharding[0], {"w": P("a"), "v": P(None, "a")}),
        allow_unexpected="n",
    )
    both = bridge.load(source, two, copied)
    attempt("copy", lambda: bridge.save(both, Path(folder, "copied"), copied))
    other = np.ones((64, 4096), np.float32)
    other[5, 4000] = 2  # in what process 1 has of it, and process 0 of the leaf that is saved
    drifted = both | {"v": jax.make_array_from_callback(other.shape, both["v"].sharding, lambda index: other[index])}
    attempt("drifted", lambda: bridge.save(drifted, Path(folder, "drifted"), copied))
    attempt("elsewhere", lambda: bridge.save(model, Path(folder, f"own-{rank}", "out"), plan))
    save_group.LATENESS = 1.0
    if rank == 0:
        attempt("late", lambda: bridge.save(model, out, plan, overwrite=True))
    else:
        time.sleep(3)
        attempt("late", lambda: bridge.save(model, out, plan, overwrite=True))
    save_group.LATENESS = 60.0
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("bridge")]
    attempt("after", lambda: bridge.save(model, out, plan, max_shard_size="400KB", overwrite=True))
    wait()
    save_group.PATIENCE = 2.0
    die = {"progress": lambda *_: os.kill(os.getpid(), signal.SIGKILL)} if rank == 1 else {}
    attempt("death", lambda: bridge.save(model, out, plan, overwrite=True, **die))
    sys.stdout.flush()
    os._exit(0)  # JAX would wait for the dead


if __name__ == "__main__":
    bridge.api.together.VISIBLE = 0.5
    main(sys.argv[1:])
