"""What a quantised tensor is to the stream: boxes of stored tensors behind a box of it, and the values of that box."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from math import prod
from typing import Any, Protocol, TypeAlias

import numpy as np

Shape: TypeAlias = tuple[int, ...]
Box: TypeAlias = tuple[range, ...]
Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"

CHUNK = 1 << 18  # elements: more calls cost more than the cache gains
SCRATCH_NBYTES = 4 << 20  # of a thread
_SHAPES = 64  # that scratch remembers


class QuantizedView(Protocol):
    """How tensors of one form come out of stored ones. It knows no file and no key; it is frozen and hashable."""

    @property
    def grain(self) -> Shape:
        """Boxes that start at multiples of it share no stored byte, but for tensors that are stored once for all."""
        ...

    def boxes(self, box: Box) -> Sequence[Box]:
        """Of each part the box behind `box`; the heaviest part first. Steps are 1."""
        ...

    def values(self, box: Box, parts: Sequence[Array], out: Array) -> None:
        """Fill `out` with the values of `box`. Pure, may run in any thread.

        **Arguments:**

        - `box`: which elements.
        - `parts`: exactly the boxes that `boxes` named, in the stored dtypes.
        - `out`: of the box's shape, its last axis in one run; float32, bfloat16 or float16. Values are rounded to it
            once.

        **Raises:** `CheckpointError` where the stored values contradict the config. The caller, who knows the key,
        puts it in front: `Logical.explained`.
        """
        ...


class Scratch:
    """Memory that is used again for each chunk."""

    def __init__(self) -> None:
        self._memory: dict[str, Array] = {}
        self._arrays: dict[tuple[str, Shape, Any], Array] = {}

    def take(self, name: str, shape: Shape, dtype: Any) -> Array:
        """An array of undefined content, C-contiguous. The next `take` of that name ends its life."""
        made = self._arrays.get((name, shape, dtype))
        if made is not None:
            return made
        kind = np.dtype(dtype)
        nbytes = prod(shape) * kind.itemsize
        memory = self._memory.get(name)
        if memory is None or memory.nbytes < nbytes:
            self._arrays = {at: array for at, array in self._arrays.items() if at[0] != name}
            memory = self._memory[name] = np.empty(nbytes, np.uint8)
        elif len(self._arrays) > _SHAPES:
            self._arrays.clear()
        made = self._arrays[name, shape, dtype] = memory[:nbytes].view(kind).reshape(shape)
        return made

    @property
    def nbytes(self) -> int:
        """How much memory it has."""
        return sum(memory.nbytes for memory in self._memory.values())


class _ThreadScratch(threading.local):
    """Of each thread the scratch of its last call: fresh memory costs as much as all that is done in it."""

    scratch: Scratch | None = None


_KEPT = _ThreadScratch()


@contextmanager
def thread_scratch() -> Generator[Scratch]:
    """The thread's own scratch, which it keeps unless it has become unusually large."""
    scratch, _KEPT.scratch = _KEPT.scratch or Scratch(), None
    yield scratch
    if scratch.nbytes <= SCRATCH_NBYTES:
        _KEPT.scratch = scratch


class Chunked(ABC):
    """A view that makes its values chunk by chunk. A format says what a chunk is made of, and makes it."""

    __slots__ = ()

    @property
    @abstractmethod
    def grain(self) -> Shape:
        """As in `QuantizedView`."""

    @abstractmethod
    def boxes(self, box: Box) -> Sequence[Box]:
        """As in `QuantizedView`."""

    @abstractmethod
    def chunk(self, box: Box, parts: Sequence[Array], out: Array, scratch: Scratch) -> None:
        """Fill `out`, which may be a part of a larger array. All axes of `box` but the last two have one element."""

    def tile(self, box: Box) -> Shape:
        """How large a chunk is: whole rows where they fit, one index of each axis before them."""
        return rows_tile(box)

    def values(self, box: Box, parts: Sequence[Array], out: Array) -> None:
        """As in `QuantizedView`."""
        if out.size == 0:
            return
        tile = self.tile(box)
        with thread_scratch() as scratch:
            if all(len(r) <= n for r, n in zip(box, tile, strict=True)):
                self.chunk(box, parts, out, scratch)
                return
            whole = self.boxes(box)
            for inner in _tiles(box, tile):
                boxes = zip(parts, self.boxes(inner), whole, strict=True)
                cut = [part[_within(small, large)] for part, small, large in boxes]
                self.chunk(inner, cut, out[_within(inner, box)], scratch)


def rows_tile(box: Box, limit: int = CHUNK, columns: int | None = None) -> Shape:
    """A tile of at most `limit` elements: a power of two of whole rows, or a part of one row.

    **Arguments:**

    - `box`: what is to be cut.
    - `limit`: elements.
    - `columns`: how many elements a row costs, if not those of the box.
    """
    columns = len(box[-1]) if columns is None else columns
    rows = 1 << max(limit // max(columns, 1), 1).bit_length() - 1
    width = max(len(box[-1]), 1) if columns <= limit else limit
    return (*(1 for _ in box[:-2]), rows, width) if len(box) > 1 else (width,)


def _tiles(box: Box, tile: Shape) -> Iterator[Box]:
    """`box` cut at the multiples of `tile`; an axis that is no longer than its tile is not cut."""
    return product(*(_cut(r, n) for r, n in zip(box, tile, strict=True)))


def _cut(span: range, step: int) -> list[range]:
    if len(span) <= step:
        return [span]
    starts = [span.start, *range((span.start // step + 1) * step, span.stop, step)]
    return [range(a, b) for a, b in zip(starts, [*starts[1:], span.stop], strict=True)]


def _within(inner: Box, outer: Box) -> tuple[slice, ...]:
    return tuple(slice(i.start - o.start, i.stop - o.start) for i, o in zip(inner, outer, strict=True))


def covering(span: range, step: int) -> range:
    """Which blocks of `step` elements hold those of `span`."""
    return range(span.start // step, -(-span.stop // step)) if span else range(span.start // step, span.start // step)
