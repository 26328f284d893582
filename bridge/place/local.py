"""What this process has of a model: the shards of its devices to save, each element once among all processes."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from bridge.mapping.indexmap import IndexMap, Shape
from bridge.stream.gather import HostLeaf, Shard


def processes(leaves: Mapping[str, Any]) -> tuple[int, ...]:
    """The processes that have parts of these arrays, in order; none where all of them are here, whole."""
    arrays = [leaf for leaf in leaves.values() if isinstance(leaf, jax.Array)]
    if all(leaf.is_fully_addressable for leaf in arrays):
        return ()
    return tuple(sorted({device.process_index for leaf in arrays for device in leaf.sharding.device_set}))


def is_whole(leaf: Any) -> bool:
    """Whether this process has all of a leaf; others may have one of the same name for themselves, or not."""
    return not isinstance(leaf, jax.Array) or leaf.is_fully_addressable


class LocalShards(Mapping[str, Sequence[Shard]]):
    """The parts of every leaf that this process saves: of those that several devices have, the first replica.

    `whole` are the names of leaves that it has whole and saves; `None` is all of them.
    """

    def __init__(self, leaves: Mapping[str, Any], *, whole: Container[str] | None = None) -> None:
        self.leaves, self.whole = leaves, whole
        self.parts: dict[str, list[Shard]] = {}
        self.alone: dict[jax.sharding.Sharding, bool] = {}

    def __getitem__(self, name: str) -> Sequence[Shard]:
        parts = self.parts.get(name)
        if parts is None:
            leaf = self.leaves[name]
            others = self.whole is not None and name not in self.whole and is_whole(leaf)
            parts = self.parts[name] = [] if others else list(self._parts(leaf))
        return parts

    def _is_alone(self, sharding: jax.sharding.Sharding) -> bool:
        """Whether an array lies in the host's memory in one piece. Many arrays have one sharding, and asking an array
        for its shards takes longer than reading a short one.
        """
        found = self.alone.get(sharding)
        if found is None:
            (device, *others), here = sharding.device_set, sharding.is_fully_addressable
            found = self.alone[sharding] = here and not others and device.platform == "cpu"
        return found

    def _parts(self, leaf: Any) -> Iterator[Shard]:
        if not isinstance(leaf, jax.Array) or self._is_alone(leaf.sharding):
            yield HostLeaf(np.asarray(leaf))
            return
        for shard in leaf.addressable_shards:
            if shard.replica_id == 0:
                start = tuple(part.indices(n)[0] for part, n in zip(shard.index, leaf.shape, strict=True))
                yield HostLeaf(np.asarray(shard.data), start) if _on_host(shard.data) else OnDevice(shard.data, start)

    def __iter__(self) -> Iterator[str]:
        return iter(self.leaves)

    def __len__(self) -> int:
        return len(self.leaves)


def _on_host(array: jax.Array) -> bool:
    """Whether the host can look at it where it lies."""
    return all(device.platform == "cpu" for device in array.devices())


class OnDevice:
    """A shard in a device's own memory: the host gets the box that is asked for, one at a time."""

    def __init__(self, shard: jax.Array, start: Shape) -> None:
        self.shard, self.start = shard, start
        self.shape, self.dtype = tuple(shard.shape), np.dtype(shard.dtype)

    def read(self, index_map: IndexMap) -> tuple[IndexMap, np.ndarray]:
        """The smallest box that holds what the map says."""
        low, high = list(index_map.leaf_start), list(index_map.leaf_start)
        for loop in index_map.loops:
            reach = (loop.extent - 1) * loop.leaf_step
            low[loop.leaf_axis] += min(reach, 0)
            high[loop.leaf_axis] += max(reach, 0)
        sizes = tuple(b - a + 1 for a, b in zip(low, high, strict=True)) if index_map.count else (0,) * len(low)
        # Compiled once for all boxes of a size: where they start is an argument.
        box = self.shard if sizes == self.shape else jax.lax.dynamic_slice(self.shard, low, sizes)
        start = tuple(a - b for a, b in zip(index_map.leaf_start, low, strict=True))
        inside = IndexMap(index_map.key_shape, sizes, index_map.key_start, start, index_map.loops)
        return inside, np.ascontiguousarray(box).reshape(sizes)
