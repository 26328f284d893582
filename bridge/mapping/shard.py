"""A mapping seen by some devices: which elements of which tensors are theirs, through stacks, splits and transposes.

The shards of one process form a grid of equal boxes. Its leaf is laid out box by box, `(grid…, box…)`, so that each box
is memory of its own, and the index maps are cut and refined to say so. Everything else is as for a whole leaf.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, pairwise, product
from math import prod
from typing import NamedTuple

import numpy as np

from bridge.mapping.arrays import Numbers, groups
from bridge.mapping.block import Block, Term
from bridge.mapping.cover import distinct
from bridge.mapping.indexmap import AxisLoop, IndexMap, Shape

Box = tuple[range, ...]


class BoxGrid(NamedTuple):
    """Equal boxes side by side: `counts[i]` of extent `box[i]` along axis `i`, the first at `start[i]` of the leaf."""

    start: Shape
    counts: Shape
    box: Shape

    @property
    def shape(self) -> Shape:
        """The shape of the memory that holds all boxes."""
        return (*self.counts, *self.box)

    def take(self, whole: np.ndarray) -> np.ndarray:
        """The boxes out of the whole leaf, as the memory of the grid has them."""
        out = np.empty(self.shape, whole.dtype)
        for index in np.ndindex(*self.counts):
            at = zip(index, self.start, self.box, strict=True)
            out[index] = whole[tuple(slice(s + k * n, s + (k + 1) * n) for k, s, n in at)]
        return out

    @classmethod
    def of(cls, boxes: Iterable[tuple[range, ...]]) -> list[BoxGrid]:
        """The grids that cover `boxes` exactly: one where they form a grid, else one for each box."""
        found = list(dict.fromkeys(tuple((r.start, r.stop) for r in box) for box in boxes))
        axes = [sorted(set(column)) for column in zip(*found, strict=True)]
        count, regular = 1, True
        for spans in axes:
            count *= len(spans)
            widths = {stop - start for start, stop in spans}
            touching = all(a[1] == b[0] for a, b in pairwise(spans))
            regular = regular and len(widths) == 1 and touching
        if regular and count == len(found):
            start = tuple(spans[0][0] for spans in axes)
            return [cls(start, tuple(map(len, axes)), tuple(spans[0][1] - spans[0][0] for spans in axes))]
        ones = (1,) * len(axes)
        return [cls(tuple(a for a, _ in box), ones, tuple(b - a for a, b in box)) for box in found]


class _AxisCut(NamedTuple):
    """Part of a map along one leaf axis: which values its loops have left, as new loops and moves of both starts."""

    key_moves: tuple[tuple[int, int], ...]  # (key axis, elements)
    box: int
    start: int  # in the box
    loops: tuple[AxisLoop, ...]


def shard(block: Block, grid: BoxGrid) -> list[Block] | None:
    """The block over the grid's memory; `None` for a sum whose terms run through the leaf in different orders.

    Atoms and starts are those of a leaf of shape `grid.shape`. Places outside the grid are gone.
    """
    if block.needs_whole:
        return None
    rank = len(grid.box)
    by_axis = _by_axis(block.terms[0].index_map, rank)
    rows = np.arange(len(block))  # one for each part of a row that is left
    cuts: list[list[_AxisCut]] = []
    chosen: list[Numbers] = []
    for axis, loops in enumerate(by_axis):
        # Rows share most of their starts: what becomes of a start along an axis is found once.
        extent = block.terms[0].index_map.leaf_shape[axis]
        starts, which = distinct(block.starts[rows, axis], extent) if len(rows) else _NONE
        found = [_cut_axis(loops, start, grid, axis) for start in starts.tolist()]
        cuts.append([cut for part in found for cut in part])
        counts = np.array([len(part) for part in found], np.intp)
        times = counts[which]
        again = np.repeat(np.arange(len(rows)), times)
        number = np.arange(len(again)) - np.repeat(np.cumsum(times) - times, times)
        rows, chosen = rows[again], [column[again] for column in chosen]
        chosen.append((np.cumsum(counts) - counts)[which[again]] + number)
    kinds = np.zeros(len(rows), np.intp)
    for found, column in zip(cuts, chosen, strict=True):
        known: dict[tuple[AxisLoop, ...], int] = {}
        numbers = np.array([known.setdefault(cut.loops, len(known)) for cut in found], np.intp)
        kinds = kinds * len(known) + numbers[column]
    return [_block(block, grid, rows[at], cuts, [column[at] for column in chosen]) for _, at in groups(kinds)]


_NONE = np.empty(0, np.int64), np.empty(0, np.intp)


def _by_axis(index_map: IndexMap, shift: int) -> list[tuple[AxisLoop, ...]]:
    """The loops along each axis of the leaf, which is axis `shift + n` of the memory."""
    rank = len(index_map.leaf_shape)
    return [tuple([a._replace(leaf_axis=shift + n) for a in index_map.loops if a.leaf_axis == n]) for n in range(rank)]


def _block(
    block: Block, grid: BoxGrid, rows: Numbers, cuts: Sequence[Sequence[_AxisCut]], chosen: Sequence[Numbers]
) -> Block:
    """What is left of some rows of a block, by the cut of each along each axis; all have the same loops."""
    columns = [np.array([cut.box for cut in found])[column] for found, column in zip(cuts, chosen, strict=True)]
    columns += [np.array([cut.start for cut in found])[column] for found, column in zip(cuts, chosen, strict=True)]
    starts = np.array(columns, np.int64).reshape(2 * len(cuts), len(rows)).T
    loops = tuple(chain(*(found[int(column[0])].loops for found, column in zip(cuts, chosen, strict=True))))
    moved = np.zeros((len(rows), len(block.terms[0].index_map.key_shape)), np.int64)
    for found, column in zip(cuts, chosen, strict=True):
        moves = np.zeros((len(found), moved.shape[1]), np.int64)
        for number, cut in enumerate(found):
            for axis, elements in cut.key_moves:
                moves[number, axis] += elements
        moved += moves[column]
    terms: list[Term] = []
    for term in block.terms:
        key_starts = term.starts[rows] + moved
        first = tuple(key_starts[0].tolist()), tuple(starts[0].tolist())
        index_map = IndexMap(term.index_map.key_shape, grid.shape, *first, loops)
        terms.append(Term(index_map, term.keys.at(rows), key_starts))
    return block.over(block.leaves.at(rows), tuple(terms), starts)


def cut(index_map: IndexMap, start: Shape, shape: Shape) -> list[IndexMap]:
    """What of a map lies in a box of the leaf: maps to the box's own memory, of `shape`, which starts at `start`."""
    if shape == index_map.leaf_shape:
        return [index_map]
    grid = BoxGrid(start, (1,) * len(shape), shape)
    axes = [
        _cut_axis(loops, first, grid, axis)
        for axis, (loops, first) in enumerate(zip(_by_axis(index_map, 0), index_map.leaf_start, strict=True))
    ]
    found: list[IndexMap] = []
    for parts in product(*axes):
        key_start = list(index_map.key_start)
        for axis, elements in chain(*(part.key_moves for part in parts)):
            key_start[axis] += elements
        loops = tuple(chain(*(part.loops for part in parts)))
        leaf_start = tuple(part.start for part in parts)
        found.append(IndexMap(index_map.key_shape, shape, tuple(key_start), leaf_start, loops))
    return found


def parts(box: Box, limit: int) -> Iterator[Box]:
    """A box cut along its outer axes into boxes of at most `limit` elements, as far as one element goes."""
    if prod(map(len, box)) <= limit or not box:
        yield box
        return
    axis = next(n for n, r in enumerate(box) if len(r) > 1)
    each = max(limit // prod(map(len, box[axis + 1 :])), 1)
    for start in range(box[axis].start, box[axis].stop, each):
        yield from parts((*box[:axis], range(start, min(start + each, box[axis].stop)), *box[axis + 1 :]), limit)


def _cut_axis(loops: tuple[AxisLoop, ...], start: int, grid: BoxGrid, axis: int) -> list[_AxisCut]:
    """The parts of a map along one leaf axis, box by box; boxes that are alike become one loop over the boxes.

    `loops` run along that axis of the boxes, the one that is put together along that of the grid.
    """
    width, count = grid.box[axis], grid.counts[axis]
    if not loops:  # one index of it, in one box or outside
        box, at = divmod(start - grid.start[axis], width) if width else (-1, 0)
        return [_AxisCut((), box, at, ())] if 0 <= box < count else []
    parts: list[list[_AxisCut]] = []
    for number in range(count):
        low = grid.start[axis] + number * width
        parts.append(
            [_AxisCut(moves, number, at - low, left) for moves, at, left in _within(loops, start, low, low + width)]
        )
    return _joined(parts, axis) or [cut for part in parts for cut in part]


def _joined(parts: Sequence[Sequence[_AxisCut]], axis: int) -> list[_AxisCut] | None:
    """One cut for all boxes where each has one, they look alike, and the tensor steps evenly from box to box."""
    if len(parts) < 2 or any(len(part) != 1 for part in parts):
        return None
    cuts = [part[0] for part in parts]
    first = cuts[0]
    if any((cut.loops, cut.start) != (first.loops, first.start) for cut in cuts):
        return None
    moves = [dict(cut.key_moves) for cut in cuts]
    changing = [key for key in moves[0].keys() | moves[-1].keys() if len({m.get(key, 0) for m in moves}) > 1]
    if len(changing) != 1:
        return None
    key_axis = changing[0]
    values = [m.get(key_axis, 0) for m in moves]
    step = values[1] - values[0]
    if step <= 0 or any(b - a != step for a, b in pairwise(values)):
        return None
    return [first._replace(loops=(AxisLoop(len(parts), key_axis, step, axis, 1), *first.loops))]


def _within(
    loops: tuple[AxisLoop, ...], start: int, low: int, high: int
) -> list[tuple[tuple[tuple[int, int], ...], int, tuple[AxisLoop, ...]]]:
    """The parts of a run of loops from `start` that lie in `[low, high)`: moves in the tensor, new start, new loops."""
    if not loops:
        return [((), start, ())] if low <= start < high else []
    outer = max(loops, key=lambda loop: abs(loop.leaf_step))
    inner = tuple(loop for loop in loops if loop is not outer)
    before = sum((loop.extent - 1) * min(loop.leaf_step, 0) for loop in inner)
    behind = sum((loop.extent - 1) * max(loop.leaf_step, 0) for loop in inner)
    step = outer.leaf_step
    whole = _values(outer.extent, step, low - before - start, high - 1 - behind - start)
    touched = _values(outer.extent, step, low - behind - start, high - 1 - before - start)
    found: list[tuple[tuple[tuple[int, int], ...], int, tuple[AxisLoop, ...]]] = []
    if len(whole):
        move = ((outer.key_axis, outer.key_step * whole.start),)
        left = outer._replace(extent=len(whole))
        found.append((move, start + step * whole.start, (left, *inner) if len(whole) > 1 else inner))
    # Of thousands of values only those at the ends are cut: the others are whole.
    ends = (range(touched.start, whole.start), range(whole.stop, touched.stop)) if len(whole) else (touched,)
    for value in chain(*ends):
        move = (outer.key_axis, outer.key_step * value)
        for moves, at, left in _within(inner, start + step * value, low, high):
            found.append((_added((move, *moves)), at, left))
    return found


def _values(extent: int, step: int, low: int, high: int) -> range:
    """The values `a` of a loop with `low <= a * step <= high`."""
    if step < 0:
        low, high, step = -high, -low, -step
    return range(max(0, -(-low // step)), min(extent, high // step + 1))


def _added(moves: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Moves along one axis as one."""
    total: dict[int, int] = {}
    for axis, elements in moves:
        total[axis] = total.get(axis, 0) + elements
    return tuple(total.items())
