"""What one process reads for its devices: the memory that it takes, the blocks that fill it, the arrays made of it."""

from __future__ import annotations

import resource
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.sharding import Sharding, SingleDeviceSharding

from bridge._errors import PlanError
from bridge._text import human_nbytes, quote
from bridge.mapping.block import Block, MemoryMap, filled
from bridge.mapping.template import Spec

if TYPE_CHECKING:
    from bridge.mapping.shard import BoxGrid
    from bridge.place.shards import Shards

DEFAULT_HOST_NBYTES = 1 << 30
"""What may be in flight where nothing says otherwise, in bytes."""


_MOST_OF_A_LEAF, _MOST_PARTS = 1000, 100_000
"""How many parts a leaf may be read in, and all together: each takes time, and may read all of a tensor again."""


def in_flight(max_host_bytes: int | None, leaves: Mapping[str, Spec], default: int = DEFAULT_HOST_NBYTES) -> int:
    """What may be in flight.

    **Arguments:** `leaves`: those that are made in that much memory.

    **Raises:** `PlanError` for what is no number of bytes, or too few to ever come to an end.
    """
    if max_host_bytes is None:
        return default
    if not isinstance(max_host_bytes, int) or max_host_bytes < 1:
        raise PlanError(
            f"max_host_bytes {max_host_bytes!r}", "is not a number of bytes", "Give a whole number, such as 1 << 30"
        )
    largest = max((spec.nbytes for spec in leaves.values()), default=0)
    total = sum(spec.nbytes for spec in leaves.values())
    # A quarter of it is the least that a part may have: see `bridge.stream.buffers.room`.
    least = 4 * max(largest // _MOST_OF_A_LEAF, total // _MOST_PARTS)
    if max_host_bytes < least:
        raise PlanError(
            f"max_host_bytes {max_host_bytes:,}",
            f"is too little: {human_nbytes(total)} would be read in too many small parts",
            f"Give at least {least:,}",
        )
    return max_host_bytes


def check_memory(needed_nbytes: int, source: str) -> None:
    """**Raises:** `PlanError` where `needed_nbytes` are more than the host can give."""
    available = available_nbytes()
    if available is not None and needed_nbytes > available:
        raise PlanError(
            f"loading {quote(source)}",
            f"needs {human_nbytes(needed_nbytes)} of memory at once, {human_nbytes(available)} are available",
            "Free some, load in a narrower dtype (dtype='bf16'), or shard over more processes",
        )


@contextmanager
def taking(needed_nbytes: int, source: str) -> Generator[None]:
    """For code that only takes memory. **Raises:** `PlanError` where the system does not give it after all."""
    try:
        yield
    except (MemoryError, OSError) as error:  # the allocator's, or that of an anonymous mapping
        raise PlanError(
            f"loading {quote(source)}",
            f"needs {human_nbytes(needed_nbytes)} of memory at once, and the system does not give it",
            "Free some, load in a narrower dtype (dtype='bf16'), or shard over more processes",
        ) from error


def available_nbytes() -> int | None:
    """What this process may still take, by the system, its control group and its limits; `None` where nothing says."""
    found = [nbytes for nbytes in (_system(), _group(), _limit()) if nbytes is not None]
    return min(found) if found else None


def _system() -> int | None:
    try:
        fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        return sum(int(fields[name].split()[0]) * 1024 for name in ("MemAvailable", "SwapFree"))
    except (OSError, KeyError, ValueError):
        return None  # no Linux


def _group() -> int | None:
    root = Path("/sys/fs/cgroup")
    try:
        most, used = (int((root / name).read_text()) for name in ("memory.max", "memory.current"))
    except (OSError, ValueError):
        return None  # no group, or no limit: "max"
    return most - used


def _limit() -> int | None:
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft == resource.RLIM_INFINITY:
        return None
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (OSError, ValueError):
        return None
    return soft - pages * resource.getpagesize()


NamedBuffers = dict[str, np.ndarray]
Device = Any
"""A `jax.Device`, which is no type that a checker knows."""


class HostBuffers:
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

    def memory(self, name: str, memory: NamedBuffers) -> list[np.ndarray]:
        """The buffers of one leaf."""
        return [memory[part] for part in self._names[name]]

    def parts(self, name: str, memory: NamedBuffers) -> list[tuple[BoxGrid | None, np.ndarray]]:
        """The buffers of one leaf, each with the boxes that it holds; `None` is all of the leaf."""
        names = self._names[name]
        grids = [None] if names == [name] else self.shards[name].grids
        return [(grid, memory[part]) for grid, part in zip(grids, names, strict=True)]

    def place(self, memory: NamedBuffers) -> dict[str, jax.Array]:
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


def canonical(dtype: np.dtype) -> np.dtype:
    """The dtype that JAX gives to `dtype`: without x64 there is no float64 and no int64."""
    return np.dtype(jax.dtypes.canonicalize_dtype(dtype))


def place(arrays: Sequence[np.ndarray], device: Any = None) -> list[jax.Array]:
    """Hand `arrays` to JAX, in one call: one for each would take twice the time.

    On the CPU the device arrays are the same memory: drop every other view of it.

    **Arguments:**

    - `arrays`: each C-contiguous, aligned to 64 bytes, of a dtype that JAX has as it is.
    - `device`: a `jax.Device` or a `jax.sharding.Sharding` of one, for all or one for each; `None` is JAX's default
        device.
    """
    return jax.device_put(list(arrays), device)


def in_default_memory(sharding: jax.sharding.Sharding | None) -> bool:
    """Whether arrays lie where devices compute; in the host's memory beside that, nothing is put together."""
    if sharding is None or sharding.memory_kind is None:
        return True
    return all(device.default_memory().kind == sharding.memory_kind for device in sharding.addressable_devices)
