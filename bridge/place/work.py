"""What one process reads for the devices that it has: memory to fill, blocks that say with what, arrays made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import jax
import numpy as np
from jax.sharding import Sharding, SingleDeviceSharding

from bridge._values import replace
from bridge.mapping.block import Block
from bridge.mapping.template import Spec
from bridge.place.arrays import place

if TYPE_CHECKING:
    from bridge.place.shards import Shards

Memory = dict[str, np.ndarray]


class Work:
    """Leaves and where they go, as memory of this process.

    - `buffers`: shape and dtype of every piece of memory, by a name: the leaf's own, or one for each grid of shards.
    - `blocks`: what fills them. `whole` are those of leaves that are one array on one device.
    """

    def __init__(
        self, blocks: Sequence[Block], leaves: Mapping[str, Spec], placements: Mapping[str, Sharding | None]
    ) -> None:
        self.leaves, self.placements = leaves, placements
        self.shards: dict[str, Shards] = {}
        self.buffers: dict[str, tuple[tuple[int, ...], np.dtype]] = {}
        self.whole: list[Block] = []
        self.blocks: list[Block] = []
        self._names: dict[str, list[str]] = {}
        by_leaf: dict[str, list[Block]] = {}
        for block in blocks:
            by_leaf.setdefault(block.leaf, []).append(block)
        for name, spec in leaves.items():
            self._add(name, spec, by_leaf.get(name, []), placements.get(name))

    def _add(self, name: str, spec: Spec, blocks: list[Block], sharding: Sharding | None) -> None:
        single = isinstance(sharding, SingleDeviceSharding) and sharding.is_fully_addressable
        if sharding is None or single:
            self._whole(name, spec, blocks)
            self.whole += blocks
            return
        # One array on one device, which most loads make, needs none of this.
        from bridge.mapping.shard import shard
        from bridge.place.shards import Shards

        self.shards[name] = Shards.of(spec, sharding)
        if any(block.uncut for block in blocks):
            self._whole(name, spec, blocks)
            return
        self._names[name] = []
        for number, grid in enumerate(self.shards[name].grids):
            memory = f"{name}@{number}"
            self.buffers[memory] = grid.shape, spec.dtype
            self._names[name].append(memory)
            for block in blocks:
                self.blocks += [replace(part, leaf=memory) for part in shard(block, grid) or []]

    def _whole(self, name: str, spec: Spec, blocks: list[Block]) -> None:
        self.buffers[name] = spec.shape, spec.dtype
        self._names[name] = [name]
        self.blocks += blocks

    @property
    def nbytes(self) -> int:
        """How much memory the buffers take."""
        return sum(int(np.prod(shape)) * dtype.itemsize for shape, dtype in self.buffers.values())

    def memory(self, name: str, memory: Memory) -> list[np.ndarray]:
        """The buffers of one leaf."""
        return [memory[part] for part in self._names[name]]

    def place(self, memory: Memory) -> dict[str, jax.Array]:
        """All leaves as device arrays, of buffers that `memory` then no longer has."""
        found: dict[str, jax.Array] = {}
        alike: dict[Sharding | None, list[str]] = {}
        for name in self.leaves:
            shards = self.shards.get(name)
            if shards is None:
                alike.setdefault(self.placements.get(name), []).append(name)
                continue
            parts = [memory.pop(part) for part in self._names[name]]
            if self._names[name] == [name]:
                parts = [grid.take(parts[0]) for grid in shards.grids]
            found[name] = shards.place(parts, self.leaves[name].dtype)
        for sharding, names in alike.items():
            found |= zip(names, place([memory.pop(name) for name in names], sharding), strict=True)
        return {name: found[name] for name in self.leaves}
