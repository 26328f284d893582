"""What one process reads for the devices that it has: memory to fill, blocks that say with what, arrays made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import jax
import numpy as np
from jax.sharding import Sharding, SingleDeviceSharding

from bridge.mapping.block import Block
from bridge.mapping.memory import MemoryMap, filled
from bridge.mapping.template import Spec
from bridge.place.arrays import place

if TYPE_CHECKING:
    from bridge.place.shards import Shards

Memory = dict[str, np.ndarray]


class Work:
    """Leaves and where they go, as memory of this process.

    - `buffers`: dtype and shape of every piece of memory, by a name: the leaf's own, or one for each grid of shards.
    - `blocks`: what fills them.
    """

    def __init__(
        self, blocks: Sequence[Block], leaves: Mapping[str, Spec], placements: Mapping[str, Sharding | None]
    ) -> None:
        self.leaves, self.placements = leaves, placements
        self.shards: dict[str, Shards] = {}
        self._names: dict[str, list[str]] = {}
        self._map = MemoryMap()
        whole = set(filled(block for block in blocks if block.needs_whole))
        for name, spec in leaves.items():
            self._add(name, spec, placements.get(name), whole=name in whole)
        self.blocks = self._map.over(blocks)

    def _add(self, name: str, spec: Spec, sharding: Sharding | None, *, whole: bool) -> None:
        if sharding is not None and not _is_single(sharding):
            # One array on one device, which most loads make, needs none of this.
            from bridge.place.shards import Shards

            self.shards[name] = Shards.of(spec, sharding)
            if not whole:
                self._names[name] = []
                for number, grid in enumerate(self.shards[name].grids):
                    self._names[name].append(f"{name}@{number}")
                    self._map.add(name, f"{name}@{number}", Spec(spec.dtype, grid.shape), grid)
                return
        self._names[name] = [name]
        self._map.add(name, name, spec)

    @property
    def buffers(self) -> Mapping[str, Spec]:
        """All memory, by name."""
        return self._map.specs

    @property
    def single(self) -> dict[str, Spec]:
        """The leaves that are one array on one device."""
        return {name: spec for name, spec in self.leaves.items() if name not in self.shards}

    @property
    def nbytes(self) -> int:
        """How much memory the buffers take."""
        return sum(spec.nbytes for spec in self.buffers.values())

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


def _is_single(sharding: Sharding) -> bool:
    return isinstance(sharding, SingleDeviceSharding) and sharding.is_fully_addressable
