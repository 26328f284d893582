"""One of several JAX processes that load a checkpoint together; a program for `test_processes.py`.

python -m tests.place.process RANK COUNT PORT FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import numpy as np

import bridge


def read_nbytes() -> int:
    """What the kernel says this process has read by system calls."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["rchar"])


def main(rank: int, count: int, port: int, folder: Path) -> None:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", count, rank, initialization_timeout=60)
    from jax.sharding import Mesh
    from jax.sharding import PartitionSpec as P

    devices = np.array(jax.devices())
    assert len(devices) == 2 * count
    mesh = Mesh(devices.reshape(count, 2), ("host", "local"))
    expected = {name: np.load(folder / f"{name}.npy") for name in ("rows", "experts", "heads", "split", "whole")}
    like = {name: jax.ShapeDtypeStruct(a.shape, a.dtype) for name, a in expected.items()}
    rules = [
        "l.{l}.rows -> rows",
        "l.{l}.e.{e} [f m] -> experts [e l m f]",
        "l.{l}.heads [(h d) m] -> heads [l h d m] ; h=8",
        "qkv [(split|k|v) m] -> {split|k|v} [_ m] ; split=256, k=128, v=128",
    ]
    specs = {
        "rows": P(None, ("host", "local")),
        "experts": P("host"),
        "heads": P(None, "host", "local"),
        "split": P(("host", "local")),
    }
    like |= {name: jax.ShapeDtypeStruct((128, 512), np.float32) for name in "kv"}
    specs |= {"k": P("host"), "v": P("host")}
    plan = bridge.plan(folder / "model.safetensors", like, rules, sharding=(mesh, specs))
    before = read_nbytes()
    loaded = bridge.load(folder / "model.safetensors", like, rules, sharding=(mesh, specs))
    read = read_nbytes() - before
    needed = 0
    for name, array in loaded.items():
        boxes = {}
        for shard in array.addressable_shards:
            if name in expected:
                assert np.asarray(shard.data).tobytes() == np.ascontiguousarray(expected[name][shard.index]).tobytes()
            boxes[str(shard.index)] = shard.data.nbytes
        needed += sum(boxes.values())
    print("needed", needed, "read", read, "planned", plan.nbytes, flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
