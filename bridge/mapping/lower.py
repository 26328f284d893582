"""From solved axes to index maps, with a place for what differs from tensor to tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from bridge.mapping.cover import Boxes
from bridge.mapping.indexmap import AxisLoop, BoundIndex, IndexMap, ParametricMap, Shape
from bridge.mapping.solve import Extents, RuleAxes, ShapeConflict, SideBranch, solve
from bridge.rules.rule import Rule
from bridge.rules.syntax import Axis, Index, JoinedParts, PartExtent, Rest


@dataclass(slots=True)
class _SideSteps:
    """One side's axes as steps: where it starts, and how each free factor moves along it."""

    start: list[int] = field(default_factory=list[int])
    steps: dict[str, tuple[int, int, int]] = field(default_factory=dict[str, "tuple[int, int, int]"])
    bound: list[BoundIndex] = field(default_factory=list[BoundIndex])


def lower(
    rule_axes: RuleAxes,
    extents: Extents,
    place: SideBranch,
    shapes: tuple[Shape, Shape],
    variables: frozenset[str],
    flip: Sequence[str],
) -> ParametricMap:
    """The map between key side and branch `place` and the leaf; `variables` are the bound indices."""
    key_shape, leaf_shape = shapes
    side, branch = place
    key = _walk(rule_axes, extents, (side, branch), key_shape, variables, on_leaf=False)
    leaf = _walk(rule_axes, extents, (len(rule_axes.sides) - 1, branch), leaf_shape, variables, on_leaf=True)
    loops: list[AxisLoop] = []
    for name, (extent, key_axis, key_step) in key.steps.items():
        if name not in leaf.steps and extent == 1:
            continue  # a part one wide vanishes on the side that chooses it
        other, leaf_axis, leaf_step = leaf.steps.get(name, (0, 0, 0))
        if other != extent:
            raise ShapeConflict(f"axis '{name}' is {extent} wide in the tensor and {other} in the leaf")
        if name in flip:
            leaf.start[leaf_axis] += leaf_step * (extent - 1)
            leaf_step = -leaf_step
        if key_step < 0:
            # A map runs forwards through the tensor, whatever its rule says, so that equal maps are equal values.
            key.start[key_axis] += key_step * (extent - 1)
            leaf.start[leaf_axis] += leaf_step * (extent - 1)
            key_step, leaf_step = -key_step, -leaf_step
        loops.append(AxisLoop(extent, key_axis, key_step, leaf_axis, leaf_step))
    index_map = IndexMap(key_shape, leaf_shape, tuple(key.start), tuple(leaf.start), tuple(loops))
    return ParametricMap(index_map, (*key.bound, *leaf.bound))


def _walk(
    rule_axes: RuleAxes, extents: Extents, place: SideBranch, shape: Shape, variables: frozenset[str], *, on_leaf: bool
) -> _SideSteps:
    axes = rule_axes.sides[place[0]]
    walk = _SideSteps()
    for axis in axes:
        if isinstance(axis, Rest):
            for number in range(len(shape) - len(axes) + 1):
                walk.steps[f"...{number}"] = (shape[len(walk.start)], len(walk.start), 1)
                walk.start.append(0)
        else:
            walk.start.append(0)
            _walk_axis(rule_axes, extents, place, axis, walk, variables, on_leaf=on_leaf)
    return walk


def _walk_axis(
    rule_axes: RuleAxes,
    extents: Extents,
    place: SideBranch,
    axis: Axis,
    walk: _SideSteps,
    variables: frozenset[str],
    *,
    on_leaf: bool,
) -> None:
    """Add the factors of the axis that `walk` has just reached, innermost first."""
    number, step = len(walk.start) - 1, 1
    for factor in reversed(axis.factors):
        extent = extents.extent(factor, place)
        if extent is None:
            raise ShapeConflict("unsolved")
        if isinstance(factor, Index):
            start, stride, count = _selected(factor, extent)
            if factor.name in variables:
                walk.bound.append(BoundIndex(factor.name, on_leaf, number, step * stride, step * start, count))
            else:
                walk.start[number] += step * start
                walk.steps[factor.name] = (count, number, step * stride)
        elif isinstance(factor, JoinedParts):
            pair = rule_axes.pair_of(place[0], factor)
            pick = rule_axes.picks(place[1])[pair]
            label = rule_axes.pairing[pair].labels[place[0]]
            before = factor.labels[: factor.labels.index(label[pick])]
            walk.start[number] += step * sum(extents.known[f"|{pair}:{label.index(other)}"] for other in before)
            walk.steps[f"|{pair}"] = (extents.known[f"|{pair}:{pick}"], number, step)
        elif isinstance(factor, PartExtent):
            walk.steps[f"|{rule_axes.pair_of(place[0], factor)}"] = (extent, number, step)
        step *= extent


def _selected(factor: Index, extent: int) -> tuple[int, int, int]:
    """Start, stride and count of an axis factor, of `extent` before selecting."""
    if factor.selection is None:
        return 0, 1, extent
    chosen = factor.selection.positions(extent)
    if isinstance(chosen, range):
        return (chosen.start, chosen.step, len(chosen)) if len(chosen) else (0, 1, 0)
    gaps = {b - a for a, b in pairwise(chosen)}
    if len(gaps) > 1:
        raise ShapeConflict(
            f"'{factor}' picks axis elements at uneven distances", "Write one rule for each run of them"
        )
    if chosen and not 0 <= max(chosen) < extent:
        raise ShapeConflict(f"'{factor}' lies outside an axis of {extent}")
    return (chosen[0], gaps.pop() if gaps else 1, len(chosen)) if chosen else (0, 1, 0)


def key_box(rule: Rule, shape: Shape) -> Boxes:
    """The elements of a tensor of `shape` that a rule drops: all, or those that its axes select.

    **Raises:** `ShapeConflict`.
    """
    axes = rule.keys[0].axes or (Rest(),)
    rule_axes = RuleAxes((axes, ()), (), dict(rule.sizes))
    extents, _ = solve(rule_axes, {(0, 0): shape})
    if unsolved := extents.unsolved():
        raise ShapeConflict(
            f"the shape {shape} does not say how wide {' and '.join(unsolved)} is", f"Add '; {unsolved[0]}=…'"
        )
    walk = _walk(rule_axes, extents, (0, 0), shape, frozenset(), on_leaf=False)
    steps: list[list[tuple[int, int]]] = [[] for _ in shape]
    for extent, axis, step in walk.steps.values():
        steps[axis].append((extent, step))
    start = np.array([walk.start], np.int64).reshape(1, len(shape))
    return Boxes(tuple(tuple(sorted(found)) for found in steps), start)
