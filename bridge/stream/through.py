"""Bytes that have to change on their way: read into scratch a chunk at a time, and copied out of it by strides."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import numpy as np

from bridge.format.spec import TensorSpec
from bridge.mapping.block import Block
from bridge.stream.convert import assign, combine
from bridge.stream.direct import CHUNK
from bridge.stream.moves import Moves, view
from bridge.stream.tie import comparing

Shape = tuple[int, ...]
Finish = Callable[[Sequence[np.ndarray]], None]


class Source(NamedTuple):
    """A run of a file and how its elements are seen: `shape` and `strides`, in elements."""

    file: str
    offset: int
    nbytes: int
    key: str
    dtype: np.dtype
    shape: Shape
    strides: Shape

    def array(self, scratch: memoryview) -> np.ndarray:
        """The elements, over bytes just read."""
        flat = np.frombuffer(scratch, self.dtype, self.nbytes // self.dtype.itemsize)
        return view(flat, 0, self.shape, self.strides)


@dataclass(frozen=True, slots=True)
class Through:
    """Sources that are read into scratch; `finish` gets an array for each and writes what becomes of them."""

    sources: tuple[Source, ...]
    finish: Finish

    @property
    def file(self) -> str:
        """The file of the first source, by which reads are ordered."""
        return self.sources[0].file

    @property
    def offset(self) -> int:
        """Where the first source starts."""
        return self.sources[0].offset

    @property
    def nbytes(self) -> int:
        """How many bytes are read."""
        return sum(source.nbytes for source in self.sources)


def through(
    block: Block, terms: Sequence[Moves], specs: Mapping[str, TensorSpec], leaf: np.ndarray
) -> Iterator[Through]:
    """A block whose bytes change: each place in chunks, or all terms of a place at once."""
    flat = leaf.reshape(-1)
    for place in range(len(block.starts)):
        if len(terms) > 1:
            yield _sum(block, terms, place, specs, flat)
            continue
        for source, start in _chunks(terms[0], place, specs):
            out = view(flat, start, source.shape, terms[0].leaf_strides)
            yield Through((source,), _combining(block, out) if block.valued else _assigning(out))


def compare(
    block: Block, terms: Sequence[Moves], specs: Mapping[str, TensorSpec], leaf: np.ndarray
) -> Iterator[Through]:
    """A tied block: what is read must be what the leaf holds."""
    flat = leaf.reshape(-1)
    for place in range(len(block.starts)):
        for source, start in _chunks(terms[0], place, specs):
            yield Through((source,), comparing(view(flat, start, source.shape, terms[0].leaf_strides)))


def _assigning(out: np.ndarray) -> Finish:
    return lambda arrays: assign(out, arrays[0])


def _combining(block: Block, out: np.ndarray) -> Finish:
    return lambda arrays: combine(arrays, block.scale, block.add, out)


def _sum(
    block: Block, terms: Sequence[Moves], place: int, specs: Mapping[str, TensorSpec], flat: np.ndarray
) -> Through:
    """One place of a sum: all of its terms, since none alone is what the leaf holds."""
    first = terms[0]
    start = int(first.leaf_starts[place])
    into = view(flat, start, first.extents, first.leaf_strides)
    sources = tuple(_source(t.keys[place], specs, t.extents, int(t.key_starts[place]), t.key_strides) for t in terms)

    def finish(arrays: Sequence[np.ndarray]) -> None:
        same = [_reordered(array, term, place, first) for array, term in zip(arrays, terms, strict=True)]
        combine(same, block.scale, block.add, into)

    return Through(sources, finish)


def _reordered(array: np.ndarray, term: Moves, place: int, first: Moves) -> np.ndarray:
    """A term of a sum in the order of the first one: terms may run through the leaf in different orders."""
    if (term.extents, term.leaf_strides) == (first.extents, first.leaf_strides):
        return array
    pairs = list(zip(term.extents, term.leaf_strides, strict=True))
    low = int(term.leaf_starts[place]) + sum(min(0, (n - 1) * stride) for n, stride in pairs)
    box = np.empty(1 + sum((n - 1) * abs(stride) for n, stride in pairs), array.dtype)
    np.copyto(view(box, int(term.leaf_starts[place]) - low, term.extents, term.leaf_strides), array)
    return view(box, int(first.leaf_starts[place]) - low, first.extents, first.leaf_strides)


def _source(key: str, specs: Mapping[str, TensorSpec], extents: Shape, start: int, strides: Shape) -> Source:
    """The run of the file that holds these elements. Strides are positive: a map runs forwards through its tensor."""
    spec = specs[key]
    span = 1 + sum((n - 1) * stride for n, stride in zip(extents, strides, strict=True)) if prod(extents) else 0
    itemsize = spec.dtype.itemsize
    return Source(spec.file, spec.offset + start * itemsize, span * itemsize, key, spec.dtype, extents, strides)


def _chunks(moves: Moves, place: int, specs: Mapping[str, TensorSpec]) -> Iterator[tuple[Source, int]]:
    """One place cut along its outermost axes into sources of at most one chunk; also where each starts in the leaf."""
    if moves.count == 0:
        return
    key = moves.keys[place]
    limit = max(CHUNK // specs[key].dtype.itemsize, 1)
    pending = [(moves.extents, int(moves.key_starts[place]), int(moves.leaf_starts[place]))]
    while pending:
        shape, start, out = pending.pop()
        source = _source(key, specs, shape, start, moves.key_strides)
        if source.nbytes <= CHUNK:
            yield source, out
            continue
        axis = next(n for n, extent in enumerate(shape) if extent > 1)
        stride, leaf_stride = moves.key_strides[axis], moves.leaf_strides[axis]
        each = min(max(limit // stride, 1), shape[axis] - 1)
        for first in reversed(range(0, shape[axis], each)):
            part = (*shape[:axis], min(each, shape[axis] - first), *shape[axis + 1 :])
            pending.append((part, start + first * stride, out + first * leaf_stride))
