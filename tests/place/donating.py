"""Cases of `test_staged.py`, run as a program under several host devices: pieces on their way into the final arrays.

The CPU backend takes an array over where it lies as JAX wants it, and then nothing is sent. Here every piece lies 16
bytes beside that, so that `device_put` copies it, as it does towards a device with memory of its own.
"""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from safetensors.numpy import save_file

import bridge
from bridge.cli.memory import forget_peak, peak_nbytes, resident_nbytes
from bridge.place import staged
from bridge.place.staged import Staging
from bridge.stream.batches import LeafBox

MIB = 1 << 20
BUDGET = 32 * MIB
LAYERS, ROWS, COLUMNS = 16, 1024, 2048
BF16, F32 = np.dtype(jnp.bfloat16), np.dtype(np.float32)
HOLDS = {"same": ("h.{l}.w -> w", BF16), "turned": ("h.{l}.w [a b] -> w [l b a]", BF16), "cast": ("h.{l}.w -> w", F32)}


def misaligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Memory that JAX cannot take over."""
    nbytes = int(np.prod(shape)) * dtype.itemsize
    block = np.empty(nbytes + 128, np.uint8)
    start = -block.ctypes.data % 64 + 16
    return block[start : start + nbytes].view(dtype).reshape(shape)


class Watched(Staging):
    """Looks at the arrays on devices while each piece is written, and after.

    - `written`: how many pieces were written into shards that were there.
    - `most`: bytes that arrays on devices had at most.
    """

    written = 0
    most = 0

    def send(self, part: LeafBox, memory: np.ndarray, device: Any) -> jax.Array:
        """As it is, and what it must be: copied, and written into the shard that is there."""
        before = self.shards[part.leaf].get(device)
        where = None if before is None else before.unsafe_buffer_pointer()
        shard = jax.block_until_ready(super().send(part, memory, device))
        assert shard.unsafe_buffer_pointer() != memory.ctypes.data, "the piece was taken over, not sent"
        if before is not None:
            assert before.is_deleted(), "the shard was not donated"
            assert shard.unsafe_buffer_pointer() == where, "the shard was written to another place"
            Watched.written += 1
        return shard


def watching(shard: jax.Array, part: jax.Array, start: Any) -> jax.Array:
    """`staged._write`, when both the shard and the piece are on the device."""
    Watched.most = max(Watched.most, sum(array.nbytes for array in jax.live_arrays()))
    return write(shard, part, start)


write = staged._write


def check(name: str, path: Path, *, sharding: Any) -> None:
    """One kind of load: its values, its arrays on devices, its memory."""
    rule, dtype = HOLDS[name]
    shape = (LAYERS, COLUMNS, ROWS) if name == "turned" else (LAYERS, ROWS, COLUMNS)
    template = {"w": jax.ShapeDtypeStruct(shape, dtype)}

    def load() -> jax.Array:
        return jax.block_until_ready(bridge.load(path, template, [rule], max_host_bytes=BUDGET, sharding=sharding)["w"])

    load()  # what is compiled once is no part of the memory
    gc.collect()
    Watched.written = Watched.most = 0
    forget_peak()
    before = resident_nbytes()
    loaded = load()
    peak = peak_nbytes() - before
    final = sum(shard.data.nbytes for shard in loaded.addressable_shards)
    print(f"{name}, {len(loaded.devices())} devices: {final=:,} {Watched.most=:,} {peak=:,} {Watched.written=}")
    assert Watched.written >= final // BUDGET
    assert final < Watched.most <= final + BUDGET // 2 + MIB, "devices held more than the final arrays and a piece"
    # Host and devices share one memory here: the final arrays, what is in flight, and the copy of it on a device.
    assert final < peak <= final + BUDGET + BUDGET // 2 + 2 * MIB
    for n in range(LAYERS):
        expected = layer(n).T if name == "turned" else layer(n)
        assert np.asarray(loaded[n]).tobytes() == expected.astype(dtype).tobytes(), n


def layer(n: int) -> np.ndarray:
    """The values of one layer."""
    return (np.arange(ROWS * COLUMNS, dtype=np.float32).reshape(ROWS, COLUMNS) % 251 + n).astype(BF16)


def main(folder: Path) -> None:
    path = folder / "x.safetensors"
    save_file({f"h.{n}.w": layer(n) for n in range(LAYERS)}, path)
    staged.empty, staged._write = misaligned, watching
    staged.Staging = Watched
    mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("a", "b"))
    for name in HOLDS:
        check(name, path, sharding=None)
        check(name, path, sharding=(mesh, {"w": P(None, "a")}))  # each box on two devices


if __name__ == "__main__":
    assert jax.device_count() == 8
    main(Path(sys.argv[1]))
    print("ok")
