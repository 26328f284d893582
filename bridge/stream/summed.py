"""Sums of tensors, some of which are computed: a box of the leaf at a time, from the boxes of all terms behind it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bridge.format.table import Form, StoredTensor, Table
from bridge.mapping.block import Block
from bridge.mapping.indexmap import AxisLoop, IndexMap, Shape, row_major, strided
from bridge.mapping.shard import cut, parts
from bridge.source.box import BAND_NBYTES, ComputedBox, FileRun, StoredBox, box_of
from bridge.stream.convert import combine
from bridge.stream.direct import KeyRows, ScaleAdd, view
from bridge.stream.sourced import SourcedRead

if TYPE_CHECKING:
    from bridge.format.view import Box


class Summand(NamedTuple):
    """A box of one term of a sum; the maps are from it to the box of the leaf that the sum makes."""

    box: StoredBox | ComputedBox
    index_maps: tuple[IndexMap, ...]


class SumDestination(NamedTuple):
    """Where a sum goes: the leaf, its memory's shape, and what becomes of it on the way."""

    leaf: str
    shape: Shape
    change: ScaleAdd


class ComputedSum(SourcedRead):
    """A box of a leaf, from `start` on, that is the sum of several tensors; `key` is the first one.

    `shape` is that of the box.
    """

    __slots__ = ("shape", "start", "terms", "whole")

    def __init__(
        self,
        key: str,
        sources: Sequence[FileRun],
        terms: Sequence[Summand],
        whole: SumDestination,
        start: Shape,
        shape: Shape,
    ) -> None:
        super().__init__(key, tuple(sources))
        self.terms, self.whole, self.start, self.shape = terms, whole, start, shape

    @property
    def scratch_nbytes(self) -> int:
        """What it takes to carry this out: what is read and computed, each term in the leaf's order, and their sum."""
        made = sum(term.box.scratch_nbytes + prod(self.shape) * term.box.dtype.itemsize for term in self.terms)
        return self.nbytes + made + 16 * prod(self.shape)

    def finish(self, read: Sequence[np.ndarray], leaves: Mapping[str, np.ndarray]) -> None:
        """Write the sum to its place. **Raises:** `CheckpointError` where a value does not fit."""
        flat = iter(read)
        made = [self._ordered(term, flat) for term in self.terms]
        leaf, change = leaves[self.whole.leaf].reshape(-1), self.whole.change
        for index_map in self.terms[0].index_maps:
            # Terms cover the same elements of the leaf, each in an order of its own.
            inside = [_at(values.reshape(-1), self.shape, index_map.leaf_start, index_map.loops) for values in made]
            start = tuple([a + b for a, b in zip(self.start, index_map.leaf_start, strict=True)])
            combine(inside, change.scale, change.add, _at(leaf, self.whole.shape, start, index_map.loops))

    def _ordered(self, term: Summand, read: Iterator[np.ndarray]) -> np.ndarray:
        """A term as the box of the leaf has it."""
        values = np.ascontiguousarray(term.box.values(read)).reshape(-1)
        out = np.empty(prod(self.shape), values.dtype)
        for index_map in term.index_maps:
            extents, key, place = strided(index_map)
            np.copyto(view(out, place.offset, extents, place.strides), view(values, key.offset, extents, key.strides))
        return out


def _at(flat: np.ndarray, shape: Shape, start: Shape, loops: Sequence[AxisLoop]) -> np.ndarray:
    """The elements of flat memory of `shape` that a map has there, an axis for each loop."""
    strides = row_major(shape)
    first = sum(a * b for a, b in zip(start, strides, strict=True))
    steps = tuple([loop.leaf_step * strides[loop.leaf_axis] for loop in loops])
    return view(flat, first, tuple([loop.extent for loop in loops]), steps)


def made_in(form: Form, dtype: np.dtype, change: ScaleAdd) -> np.dtype:
    """The dtype in which a tensor's values are computed for a leaf of `dtype`, so that they are rounded once."""
    if not form.computed_in:
        return form.dtype
    as_it_is = change.is_none or change.tie
    return dtype if as_it_is and dtype in form.computed_in else max(form.computed_in, key=lambda d: d.itemsize)


def sums(block: Block, terms: Sequence[KeyRows], specs: Table, leaves: Sequence[str]) -> Iterator[ComputedSum]:
    """The reads of all rows of a block."""
    change = ScaleAdd(block.scale, block.add, block.tie)
    for row in range(len(terms[0].leaves)):
        maps = [_map(term.index_map, rows, row) for term, rows in zip(block.terms, terms, strict=True)]
        if maps[0].count:
            tensors = [specs.part(int(rows.keys[row])) for rows in terms]
            whole = SumDestination(leaves[int(terms[0].leaves[row])], maps[0].leaf_shape, change)
            yield from _sums(maps, tensors, whole)


def _map(index_map: IndexMap, rows: KeyRows, row: int) -> IndexMap:
    key_start, leaf_start = (tuple(column[row].tolist()) for column in (rows.key_starts, rows.leaf_starts))
    return IndexMap(index_map.key_shape, index_map.leaf_shape, key_start, leaf_start, index_map.loops)


def _sums(maps: Sequence[IndexMap], tensors: Sequence[StoredTensor], whole: SumDestination) -> Iterator[ComputedSum]:
    """One row of a sum, cut into boxes of the leaf."""
    limit = max(BAND_NBYTES // (8 * len(maps)), 1)
    for band in parts(box_behind([maps[0].back]), limit):
        start, shape = tuple(r.start for r in band), tuple(map(len, band))
        terms: list[Summand] = []
        sources: list[FileRun] = []
        for tensor, index_map in zip(tensors, maps, strict=True):
            inside = cut(index_map, start, shape)
            if inside:
                box = box_behind(inside)
                computed_in = made_in(tensor.form, tensor.form.dtype, ScaleAdd(scale=2))
                terms.append(Summand(box_of(tensor, box, computed_in), tuple([_based(one, box) for one in inside])))
                sources += terms[-1].box.sources(tensor)
        if terms:
            yield ComputedSum(tensors[0].name, sources, terms, whole, start, shape)


def _based(index_map: IndexMap, box: Box) -> IndexMap:
    """A map of what lies in a box of the tensor, as one of the box's own memory."""
    start = tuple([a - r.start for a, r in zip(index_map.key_start, box, strict=True)])
    return IndexMap(tuple(map(len, box)), index_map.leaf_shape, start, index_map.leaf_start, index_map.loops)


def box_behind(maps: Sequence[IndexMap]) -> Box:
    """The smallest box of a tensor that holds what maps take from it."""
    spans: list[tuple[list[int], list[int]]] = []
    for one in maps:
        low, high = list(one.key_start), list(one.key_start)
        for loop in one.loops:
            reach = (loop.extent - 1) * loop.key_step
            low[loop.key_axis] += min(reach, 0)
            high[loop.key_axis] += max(reach, 0)
        spans.append((low, high))
    axes = range(len(maps[0].key_start))
    return tuple([range(min(low[n] for low, _ in spans), max(high[n] for _, high in spans) + 1) for n in axes])
