"""A plan as reads: which bytes of which file go where in memory, and what is done to them on the way.

Where file and leaf hold elements in the same order, bytes are read straight into the leaf. Elsewhere they pass through
a small scratch buffer, a few megabytes at a time, and are copied out of it by strides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import numpy as np

from bridge.format.spec import TensorSpec
from bridge.mapping.block import Block
from bridge.mapping.indexmap import IndexMap, Strided, strided
from bridge.stream.buffers import as_bytes
from bridge.stream.convert import assign, combine

CHUNK = 4 << 20
"""Bytes of one read: any size from 1 to 64 MiB is as fast, and scratch is one chunk a thread."""
_RUN = 16 << 10  # shorter runs are cheaper to copy out of scratch than to read one by one


class Direct(NamedTuple):
    """Bytes of a file that are a leaf's own: read where they belong."""

    file: str
    offset: int
    key: str
    into: memoryview


class Source(NamedTuple):
    """A run of a file, and how its elements are seen: `view(scratch)` gives them in the order of the map."""

    file: str
    offset: int
    nbytes: int
    key: str
    dtype: np.dtype
    shape: tuple[int, ...]
    start: int
    strides: tuple[int, ...]

    def view(self, scratch: memoryview) -> np.ndarray:
        """The elements as an array of `shape`, over bytes just read."""
        flat = np.frombuffer(scratch, self.dtype, self.nbytes // self.dtype.itemsize)
        steps = tuple(n * self.dtype.itemsize for n in self.strides)
        return np.lib.stride_tricks.as_strided(flat[self.start :], self.shape, steps)


@dataclass(frozen=True, slots=True)
class Through:
    """Bytes that pass through scratch: `finish` gets one array for each source."""

    sources: tuple[Source, ...]
    finish: Callable[[Sequence[np.ndarray]], None]

    @property
    def file(self) -> str:
        """The file of the first source, by which reads are ordered."""
        return self.sources[0].file

    @property
    def offset(self) -> int:
        """Where the first source starts."""
        return self.sources[0].offset


Job = Direct | Through


def jobs(blocks: Iterable[Block], specs: Mapping[str, TensorSpec], leaves: Mapping[str, np.ndarray]) -> list[Job]:
    """All reads of a plan, in the order in which they lie in the files. Ties are not among them."""
    order = {file: n for n, file in enumerate(dict.fromkeys(spec.file for spec in specs.values()))}
    found = [job for block in blocks if not block.tie for job in _of_block(block, specs, leaves[block.leaf])]
    found.sort(key=lambda job: (order[job.file], job.offset))
    return found


def ties(blocks: Iterable[Block], specs: Mapping[str, TensorSpec], leaves: Mapping[str, np.ndarray]) -> Iterator[Job]:
    """Reads that compare a tied key with the leaf that another key has filled."""
    for block in blocks:
        if block.tie:
            for place in range(len(block.starts)):
                for key, index_map in block.maps(place):
                    yield from _compare(key, specs[key], index_map, leaves[block.leaf])


def _of_block(block: Block, specs: Mapping[str, TensorSpec], leaf: np.ndarray) -> Iterator[Job]:
    if len(block.terms) > 1:
        for place in range(len(block.starts)):
            yield _sum(list(block.maps(place)), specs, leaf, block)
        return
    for place in range(len(block.starts)):
        ((key, index_map),) = block.maps(place)
        spec = specs[key]
        if (
            spec.dtype == leaf.dtype
            and not block.valued
            and (runs := _runs(index_map, spec.dtype.itemsize)) is not None
        ):
            yield from _direct(key, spec, leaf, runs)
        else:
            yield from _through(key, spec, index_map, leaf, block)


def _runs(index_map: IndexMap, itemsize: int) -> Iterator[tuple[int, int, int]] | None:
    """Runs that tensor and leaf both hold as one, as (tensor start, leaf start, count); `None` where they are short."""
    extents, key, leaf = strided(index_map)
    if index_map.count == 0:
        return iter(())
    if not extents:
        return iter([(key.offset, leaf.offset, 1)])
    if key.strides[-1] != 1 or leaf.strides[-1] != 1:
        return None
    if len(extents) > 1 and extents[-1] * itemsize < _RUN:
        return None
    if len(extents) == 1:
        return iter([(key.offset, leaf.offset, extents[0])])
    outer = np.indices(extents[:-1]).reshape(len(extents) - 1, -1)
    starts = np.array(key.strides[:-1]) @ outer + key.offset, np.array(leaf.strides[:-1]) @ outer + leaf.offset
    return ((int(a), int(b), extents[-1]) for a, b in zip(*starts, strict=True))


def _direct(key: str, spec: TensorSpec, leaf: np.ndarray, runs: Iterable[tuple[int, int, int]]) -> Iterator[Direct]:
    into, itemsize = as_bytes(leaf), spec.dtype.itemsize
    for key_start, leaf_start, count in runs:
        for done in range(0, count * itemsize, CHUNK):
            start, stop = leaf_start * itemsize + done, min(leaf_start + count, leaf_start + (done + CHUNK) // itemsize)
            yield Direct(spec.file, spec.offset + key_start * itemsize + done, key, into[start : stop * itemsize])


def _through(key: str, spec: TensorSpec, index_map: IndexMap, leaf: np.ndarray, block: Block) -> Iterator[Through]:
    flat = leaf.reshape(-1)
    for source, out_start, out_strides in _chunks(key, spec, index_map):
        out = _view(flat, out_start, source.shape, out_strides)
        if block.valued:
            yield Through((source,), _combining(block, out))
        else:
            yield Through((source,), _assigning(out))


def _assigning(out: np.ndarray) -> Callable[[Sequence[np.ndarray]], None]:
    return lambda arrays: assign(out, arrays[0])


def _combining(block: Block, out: np.ndarray) -> Callable[[Sequence[np.ndarray]], None]:
    return lambda arrays: combine(arrays, block.scale, block.add, out)


def _sum(
    maps: Sequence[tuple[str, IndexMap]], specs: Mapping[str, TensorSpec], leaf: np.ndarray, block: Block
) -> Through:
    """One place of a sum: all of its terms at once, since none alone is what the leaf holds."""
    sources: list[Source] = []
    views: list[Strided] = []
    for key, index_map in maps:
        extents, view, out = strided(index_map)
        sources.append(_source(key, specs[key], extents, view.offset, view.strides))
        views.append(out)
    shape, first = sources[0].shape, views[0]
    into = _view(leaf.reshape(-1), first.offset, shape, first.strides)

    def finish(arrays: Sequence[np.ndarray]) -> None:
        terms = [_reordered(array, view, shape, first) for array, view in zip(arrays, views, strict=True)]
        combine(terms, block.scale, block.add, into)

    return Through(tuple(sources), finish)


def _reordered(array: np.ndarray, view: Strided, shape: tuple[int, ...], first: Strided) -> np.ndarray:
    """A term of a sum in the order of the first one: terms may run through the leaf in different orders."""
    if view == first and array.shape == shape:
        return array
    low = view.offset + sum(min(0, (n - 1) * stride) for n, stride in zip(array.shape, view.strides, strict=True))
    span = 1 + sum((n - 1) * abs(stride) for n, stride in zip(array.shape, view.strides, strict=True))
    box = np.empty(span, array.dtype)
    np.copyto(_view(box, view.offset - low, array.shape, view.strides), array)
    return _view(box, first.offset - low, shape, first.strides)


def _compare(key: str, spec: TensorSpec, index_map: IndexMap, leaf: np.ndarray) -> Iterator[Through]:
    from bridge.stream.tie import comparing

    flat = leaf.reshape(-1)
    for source, start, strides in _chunks(key, spec, index_map):
        yield Through((source,), comparing(_view(flat, start, source.shape, strides)))


def _view(flat: np.ndarray, start: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> np.ndarray:
    steps = tuple(n * flat.dtype.itemsize for n in strides)
    return np.lib.stride_tricks.as_strided(flat[start:], shape, steps)


def _source(key: str, spec: TensorSpec, extents: tuple[int, ...], start: int, strides: tuple[int, ...]) -> Source:
    """The run of the file that holds these elements. Strides are positive: a map runs forwards through its tensor."""
    span = 1 + sum((n - 1) * stride for n, stride in zip(extents, strides, strict=True)) if prod(extents) else 0
    itemsize = spec.dtype.itemsize
    return Source(spec.file, spec.offset + start * itemsize, span * itemsize, key, spec.dtype, extents, 0, strides)


def _chunks(key: str, spec: TensorSpec, index_map: IndexMap) -> Iterator[tuple[Source, int, tuple[int, ...]]]:
    """A map cut along its outermost axes into sources of at most one chunk; also where each starts in the leaf."""
    extents, view, out = strided(index_map)
    if prod(extents) == 0:
        return
    pending = [(extents, view.offset, out.offset)]
    limit = max(CHUNK // spec.dtype.itemsize, 1)
    while pending:
        shape, start, out_start = pending.pop()
        source = _source(key, spec, shape, start, view.strides)
        if source.nbytes <= CHUNK:
            yield source, out_start, out.strides
            continue
        axis = next(n for n, extent in enumerate(shape) if extent > 1)
        each = max(limit // max(view.strides[axis], 1), 1)
        each = min(each, shape[axis] - 1) if shape[axis] > 1 else 1
        for first in reversed(range(0, shape[axis], each)):
            part = (*shape[:axis], min(each, shape[axis] - first), *shape[axis + 1 :])
            pending.append((part, start + first * view.strides[axis], out_start + first * out.strides[axis]))
