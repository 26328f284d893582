"""The host as a staging area: pieces of leaves are read, sent to their device and written into the final array there.

For devices with memory of their own, or where `max_host_bytes` says how much may be in flight. The host holds at most
that much at once; a device holds the final array and one piece.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from math import prod

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding, SingleDeviceSharding

from bridge._values import NamedTuple, replace
from bridge.mapping.block import Block
from bridge.mapping.shard import Box, Grid, parts, shard
from bridge.mapping.template import Spec
from bridge.place.arrays import Device
from bridge.stream.budget import part_nbytes, room
from bridge.stream.buffers import empty

Fill = Callable[[Sequence[Block], Mapping[str, np.ndarray]], None]


class Piece(NamedTuple):
    """Part of one leaf: a box of it, which lies in the shard `within` of each of `devices`."""

    leaf: str
    box: Box
    within: Box
    devices: tuple[Device, ...]

    @property
    def name(self) -> str:
        """A name for its memory."""
        return f"{self.leaf}@{','.join(f'{r.start}:{r.stop}' for r in self.box)}"

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return tuple(map(len, self.box))


class Staging:
    """Leaves on their way to devices, `max_nbytes` at a time."""

    def __init__(
        self,
        blocks: Sequence[Block],
        leaves: Mapping[str, Spec],
        placements: Mapping[str, Sharding | None],
        max_nbytes: int,
        parallel: int | None,
    ) -> None:
        """**Arguments:** as for `Work`; `parallel`: how many read at once over a network, None without one."""
        self.leaves = leaves
        self.max_nbytes = room(max_nbytes, parallel)
        self.placements = {name: placements.get(name) or SingleDeviceSharding(_default()) for name in leaves}
        self.blocks: dict[str, list[Block]] = {name: [] for name in leaves}
        for block in blocks:
            self.blocks[block.leaf].append(block)
        self.shards: dict[str, dict[Device, jax.Array]] = {name: {} for name in leaves}

    @property
    def host_nbytes(self) -> int:
        """What the final arrays take of the host's own memory: nothing, but for devices that are the host."""
        found = 0
        for name, spec in self.leaves.items():
            sharding = self.placements[name]
            devices = [device for device in sharding.addressable_devices if device.platform == "cpu"]
            found += len(devices) * prod(sharding.shard_shape(spec.shape)) * spec.dtype.itemsize
        return found

    def carry_out(self, fill: Fill, taking: Callable[[], AbstractContextManager[None]]) -> dict[str, jax.Array]:
        """Read and place everything.

        **Arguments:**

        - `fill`: reads what blocks say into memory.
        - `taking`: around whatever takes memory.
        """
        sent: list[jax.Array] = []
        for batch in self.batches():
            with taking():
                memory = {piece.name: empty(piece.shape, self.leaves[piece.leaf].dtype) for piece in batch}
            fill([block for piece in batch for block in self.cut(piece)], memory)
            # The batch before must have left the host before this one doubles what is in flight.
            jax.block_until_ready(sent)
            sent = [self.send(piece, memory[piece.name], device) for piece in batch for device in piece.devices]
            del memory
        jax.block_until_ready(sent)
        return {name: self.whole(name) for name in self.leaves}

    def batches(self) -> Iterator[list[Piece]]:
        """Pieces of at most half of what may be in flight: one half is read while the other is sent."""
        batch: list[Piece] = []
        nbytes = 0
        for piece in self.pieces():
            more = prod(piece.shape) * self.leaves[piece.leaf].dtype.itemsize
            if batch and nbytes + more > self.max_nbytes // 2:
                yield batch
                batch, nbytes = [], 0
            batch.append(piece)
            nbytes += more
        if batch:
            yield batch

    def pieces(self) -> Iterator[Piece]:
        """All pieces of the shards that this process holds, each box once whatever the number of its devices."""
        for name, spec in self.leaves.items():
            boxes: dict[Box, list[Device]] = {}
            index_map = self.placements[name].addressable_devices_indices_map(spec.shape)
            for device, index in index_map.items():
                box = tuple(range(*part.indices(n)) for part, n in zip(index or (), spec.shape, strict=True))
                boxes.setdefault(box, []).append(device)
            for box, devices in boxes.items():
                limit = max(part_nbytes(self.blocks[name], self.max_nbytes // 2) // spec.dtype.itemsize, 1)
                for part in parts(box, limit):
                    yield Piece(name, part, box, tuple(devices))

    def cut(self, piece: Piece) -> Iterator[Block]:
        """The blocks that fill one piece."""
        grid = Grid(tuple(r.start for r in piece.box), (1,) * len(piece.box), piece.shape)
        for block in self.blocks[piece.leaf]:
            for part in shard(block, grid) or []:
                yield replace(part, leaf=piece.name)

    def send(self, piece: Piece, memory: np.ndarray, device: Device) -> jax.Array:
        """Put a piece where it belongs on `device`; returns the shard as far as it is there."""
        part = jax.device_put(memory, device)
        shards = self.shards[piece.leaf]
        if piece.box == piece.within:
            shards[device] = part
            return part
        if device not in shards:
            shape = tuple(map(len, piece.within))
            with jax.default_device(device):
                shards[device] = jnp.zeros(shape, self.leaves[piece.leaf].dtype)
        start = [r.start - w.start for r, w in zip(piece.box, piece.within, strict=True)]
        shards[device] = _write(shards[device], part, [jnp.asarray(n, jnp.int32) for n in start])
        return shards[device]

    def whole(self, name: str) -> jax.Array:
        """The finished leaf."""
        sharding, spec = self.placements[name], self.leaves[name]
        parts = list(self.shards.pop(name).values())
        if isinstance(sharding, SingleDeviceSharding) and parts:
            return parts[0]
        return jax.make_array_from_single_device_arrays(spec.shape, sharding, parts, dtype=spec.dtype)


@partial(jax.jit, donate_argnums=0)
def _write(shard: jax.Array, part: jax.Array, start: Sequence[jax.Array]) -> jax.Array:
    """The shard with one part written, in the shard's own memory."""
    return jax.lax.dynamic_update_slice(shard, part, start)


def _default() -> Device:
    """Where JAX puts an array that is told nothing."""
    return next(iter(jnp.zeros(0).devices()))
