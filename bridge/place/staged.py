"""The host as a staging area: parts of leaves are read, sent to their device and written into the final array there.

For devices with memory of their own, or where `max_host_bytes` says how much may be in flight. The host holds at most
that much at once; a device holds the final array and one part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from math import prod
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding, SingleDeviceSharding

from bridge.mapping.block import Block
from bridge.mapping.shard import Box
from bridge.mapping.template import Spec
from bridge.place.work import Device
from bridge.stream.batches import Batches, LeafBox
from bridge.stream.buffers import batches, empty, room

if TYPE_CHECKING:
    from bridge.place.kept import KeptPart

Fill = Callable[[Sequence[Block], Mapping[str, np.ndarray]], None]


class Staging:
    """Leaves on their way to devices, `max_nbytes` at a time."""

    def __init__(
        self,
        blocks: Sequence[Block],
        leaves: Mapping[str, Spec],
        placements: Mapping[str, Sharding | None],
        max_nbytes: int,
        parallel: int | None,
        kept: Mapping[str, KeptPart],
    ) -> None:
        """**Arguments:** as for `HostBuffers`; `parallel`: how many read at once over a network, else None; `kept`: the
        rest of leaves that keys fill in part.
        """
        self.kept = kept
        self.leaves = leaves
        self.max_nbytes = room(max_nbytes, parallel)
        self.placements = {name: placements.get(name) or SingleDeviceSharding(_default()) for name in leaves}
        self.made = Batches(blocks, leaves)
        self.devices: dict[str, dict[Box, list[Device]]] = {name: self._devices(name) for name in leaves}
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
                memory = {part.name: empty(part.shape, part.spec.dtype) for part in batch}
            for part in batch:
                if part.leaf in self.kept:
                    self.kept[part.leaf].write(part.box, memory[part.name])
            fill(self.made.of(batch), memory)
            # The batch before must have left the host before this one doubles what is in flight.
            jax.block_until_ready(sent)
            sent = [
                self.send(part, memory[part.name], device)
                for part in batch
                for device in self.devices[part.leaf][part.within]
            ]
            del memory
        jax.block_until_ready(sent)
        return {name: self.whole(name) for name in self.leaves}

    def batches(self) -> Iterator[list[LeafBox]]:
        """Parts of at most half of what may be in flight: one half is read while the other is sent."""
        return batches(self.parts(), self.max_nbytes // 2)

    def parts(self) -> Iterator[LeafBox]:
        """All parts of the shards that this process holds, each box once whatever the number of its devices."""
        for name, boxes in self.devices.items():
            for box in boxes:
                yield from self.made.parts(name, box, self.max_nbytes // 2)

    def _devices(self, name: str) -> dict[Box, list[Device]]:
        """The shards of a leaf that this process holds, each with the devices that have it."""
        shape = self.leaves[name].shape
        found: dict[Box, list[Device]] = {}
        for device, index in self.placements[name].addressable_devices_indices_map(shape).items():
            box = tuple(range(*part.indices(n)) for part, n in zip(index or (), shape, strict=True))
            found.setdefault(box, []).append(device)
        return found

    def send(self, part: LeafBox, memory: np.ndarray, device: Device) -> jax.Array:
        """Put a part where it belongs on `device`; returns the shard as far as it is there."""
        sent = jax.device_put(memory, device)
        shards = self.shards[part.leaf]
        if part.box == part.within:
            shards[device] = sent
            return sent
        if device not in shards:
            shape = tuple(map(len, part.within))
            with jax.default_device(device):
                shards[device] = jnp.zeros(shape, self.leaves[part.leaf].dtype)
        start = [r.start - w.start for r, w in zip(part.box, part.within, strict=True)]
        shards[device] = _write(shards[device], sent, [jnp.asarray(n, jnp.int32) for n in start])
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
