"""A mapping seen by some devices: which elements of which tensors are theirs, through stacks, splits and transposes.

The shards of one process form a grid of equal boxes. Its leaf is laid out box by box, `(grid…, box…)`, so that each box
is memory of its own, and the index maps are cut and refined to say so. Everything else is as for a whole leaf.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

from bridge.mapping.block import Block, Term
from bridge.mapping.indexmap import Atom, IndexMap, Shape
from bridge.mapping.places import Places


class Grid(NamedTuple):
    """Equal boxes side by side: `counts[i]` of extent `box[i]` along axis `i`, the first at `start[i]` of the leaf."""

    start: Shape
    counts: Shape
    box: Shape

    @property
    def shape(self) -> Shape:
        """The shape of the memory that holds all boxes."""
        return (*self.counts, *self.box)

    @classmethod
    def of(cls, boxes: Iterable[tuple[range, ...]]) -> list[Grid]:
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


class _Cut(NamedTuple):
    """Part of a map: which values its atoms have left, as new atoms and moves of both starts."""

    key_moves: tuple[tuple[int, int], ...]  # (key axis, elements)
    leaf_starts: tuple[int, int]  # (which box, where in it)
    atoms: tuple[Atom, ...]


def shard(block: Block, grid: Grid) -> list[Block] | None:
    """The block over the grid's memory; `None` for a sum, whose terms may be cut differently.

    Atoms and starts are those of a leaf of shape `grid.shape`. Places outside the grid are gone.
    """
    if block.summed:
        return None
    term = block.terms[0]
    rank = len(grid.box)
    cache: dict[tuple[int, int], list[_Cut]] = {}
    groups: dict[tuple[Atom, ...], list[tuple[int, Shape, Shape]]] = {}
    by_axis = [tuple(a for a in term.index_map.atoms if a.leaf_axis == axis) for axis in range(rank)]
    for place, (key_start, leaf_start) in enumerate(zip(term.starts, block.starts, strict=True)):
        partial: list[tuple[Shape, Shape, Shape, tuple[Atom, ...]]] = [(key_start, (), (), ())]
        for axis in range(rank):
            at = (axis, leaf_start[axis])
            if at not in cache:
                cache[at] = _cut_axis(by_axis[axis], leaf_start[axis], grid, axis)
            partial = [
                (
                    _moved(start, cut.key_moves),
                    (*boxes, cut.leaf_starts[0]),
                    (*inner, cut.leaf_starts[1]),
                    (*atoms, *cut.atoms),
                )
                for start, boxes, inner, atoms in partial
                for cut in cache[at]
            ]
        for start, boxes, inner, atoms in partial:
            groups.setdefault(atoms, []).append((place, start, (*boxes, *inner)))
    return [_block(block, term, grid, atoms, members) for atoms, members in groups.items()]


def _block(
    block: Block, term: Term, grid: Grid, atoms: tuple[Atom, ...], members: list[tuple[int, Shape, Shape]]
) -> Block:
    places, key_starts, leaf_starts = zip(*members, strict=True)
    index_map = IndexMap(term.index_map.key_shape, grid.shape, key_starts[0], leaf_starts[0], atoms)
    made = Term(index_map, term.keys.at(list(places)), Places(key_starts))
    return replace(block, terms=(made,), starts=Places(leaf_starts))


def _moved(start: Shape, moves: Iterable[tuple[int, int]]) -> Shape:
    moved = list(start)
    for axis, elements in moves:
        moved[axis] += elements
    return tuple(moved)


def _cut_axis(atoms: Sequence[Atom], start: int, grid: Grid, axis: int) -> list[_Cut]:
    """The parts of a map along one leaf axis, box by box; boxes that are alike become one atom over the boxes."""
    rank, width, count = len(grid.box), grid.box[axis], grid.counts[axis]
    parts: list[list[_Cut]] = []
    for number in range(count):
        low = grid.start[axis] + number * width
        cuts = _within(tuple(atoms), start, low, low + width)
        parts.append(
            [
                _Cut(moves, (number, at - low), tuple(a._replace(leaf_axis=rank + axis) for a in left))
                for moves, at, left in cuts
            ]
        )
    return _joined(parts, axis) or [cut for part in parts for cut in part]


def _joined(parts: Sequence[Sequence[_Cut]], axis: int) -> list[_Cut] | None:
    """One cut for all boxes where each has one, they look alike, and the tensor steps evenly from box to box."""
    if len(parts) < 2 or any(len(part) != 1 for part in parts):
        return None
    cuts = [part[0] for part in parts]
    first = cuts[0]
    if any((cut.atoms, cut.leaf_starts[1]) != (first.atoms, first.leaf_starts[1]) for cut in cuts):
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
    return [first._replace(atoms=(Atom(len(parts), key_axis, step, axis, 1), *first.atoms))]


def _within(
    atoms: tuple[Atom, ...], start: int, low: int, high: int
) -> list[tuple[tuple[tuple[int, int], ...], int, tuple[Atom, ...]]]:
    """The parts of a run of atoms from `start` that lie in `[low, high)`: moves in the tensor, new start, new atoms."""
    if not atoms:
        return [((), start, ())] if low <= start < high else []
    outer = max(atoms, key=lambda atom: abs(atom.leaf_step))
    inner = tuple(atom for atom in atoms if atom is not outer)
    before = sum((atom.extent - 1) * min(atom.leaf_step, 0) for atom in inner)
    behind = sum((atom.extent - 1) * max(atom.leaf_step, 0) for atom in inner)
    step = outer.leaf_step
    whole = _values(outer.extent, step, low - before - start, high - 1 - behind - start)
    touched = _values(outer.extent, step, low - behind - start, high - 1 - before - start)
    found: list[tuple[tuple[tuple[int, int], ...], int, tuple[Atom, ...]]] = []
    if len(whole):
        move = ((outer.key_axis, outer.key_step * whole.start),)
        left = outer._replace(extent=len(whole))
        found.append((move, start + step * whole.start, (left, *inner) if len(whole) > 1 else inner))
    for value in touched:
        if value not in whole:
            move = (outer.key_axis, outer.key_step * value)
            for moves, at, left in _within(inner, start + step * value, low, high):
                found.append((_added((move, *moves)), at, left))
    return found


def _values(extent: int, step: int, low: int, high: int) -> range:
    """The values `a` of an atom with `low <= a * step <= high`."""
    if step < 0:
        low, high, step = -high, -low, -step
    return range(max(0, -(-low // step)), min(extent, high // step + 1))


def _added(moves: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Moves along one axis as one."""
    total: dict[int, int] = {}
    for axis, elements in moves:
        total[axis] = total.get(axis, 0) + elements
    return tuple(total.items())
