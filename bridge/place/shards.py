"""Arrays that are spread over devices, made of what this process has of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import SingleDeviceSharding

from bridge.mapping.shard import BoxGrid
from bridge.mapping.template import Spec
from bridge.place.work import Device, canonical, place


def spread(value: Any, sharding: Any = None) -> jax.Array:
    """An array that the host or the template has already, under `sharding`; `None` leaves it where JAX puts it.

    Every process places the shards of its own devices: it compares nothing with the others, nor waits for them.

    **Raises:** `ValueError` for an array that is spread over several processes already, and otherwise than asked for.
    """
    if isinstance(value, jax.Array):
        if sharding is None or value.sharding.is_equivalent_to(sharding, value.ndim):
            return value
        if not value.is_fully_addressable:
            raise ValueError(f"is spread over several processes as {value.sharding}")
        if sharding.is_fully_addressable:
            return jax.device_put(value, sharding)
    host = np.asarray(value)
    if sharding is None or sharding.is_fully_addressable:
        # A copy: the caller keeps theirs, and on the CPU JAX would take it over.
        return jax.device_put(np.array(host, canonical(host.dtype)), sharding)
    host = host.astype(canonical(host.dtype), copy=False)
    shards = Shards.of(Spec(host.dtype, host.shape), sharding)
    return shards.place([grid.take(host) for grid in shards.grids], host.dtype)


@dataclass(frozen=True, slots=True)
class Shards:
    """The shards of one leaf that this process holds.

    `grids` are the boxes that it reads, each box once whatever the number of its devices; `homes` says for every
    addressable device which grid and which of its boxes is its own.
    """

    shape: tuple[int, ...]
    sharding: jax.sharding.Sharding
    grids: tuple[BoxGrid, ...]
    homes: tuple[tuple[Device, int, tuple[int, ...]], ...]

    @classmethod
    def of(cls, spec: Spec, sharding: jax.sharding.Sharding) -> Shards:
        """The shards of an array of `spec` under `sharding`."""
        boxes = {
            device: tuple(range(*part.indices(n)) for part, n in zip(index, spec.shape, strict=True))
            for device, index in sharding.addressable_devices_indices_map(spec.shape).items()
            if index is not None
        }
        grids = tuple(BoxGrid.of(boxes.values())) if boxes else ()
        homes: list[tuple[Device, int, tuple[int, ...]]] = []
        for device, box in boxes.items():
            for number, grid in enumerate(grids):
                place = _inside(grid, box)
                if place is not None:
                    homes.append((device, number, place))
                    break
        return cls(spec.shape, sharding, grids, tuple(homes))

    def place(self, memory: list[np.ndarray], dtype: np.dtype) -> jax.Array:
        """One global array of the shards in `memory`, one array for each grid. No process waits for another."""
        kind = self.sharding.memory_kind
        devices = [SingleDeviceSharding(device, memory_kind=kind) for device, _, _ in self.homes]
        parts = place([memory[number][index] for _, number, index in self.homes], devices)
        return jax.make_array_from_single_device_arrays(self.shape, self.sharding, parts, dtype=dtype)


def _inside(grid: BoxGrid, box: tuple[range, ...]) -> tuple[int, ...] | None:
    """Which box of `grid` this one is."""
    index: list[int] = []
    for span, start, width, count in zip(box, grid.start, grid.box, grid.counts, strict=True):
        number = (span.start - start) // width if width else 0
        if len(span) != width or not 0 <= number < count or span.start != start + number * width:
            return None
        index.append(number)
    return tuple(index)
