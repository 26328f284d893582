"""Indices that only a leaf's name has: the tensor holds them as an axis, `w [l o] -> layers.{l}.w [o]`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import prod

import numpy as np

from bridge._errors import PlanError
from bridge._text import quote
from bridge.mapping.arrays import ArrayTable, Numbers
from bridge.mapping.bound import BoundRule, NameRows
from bridge.mapping.pattern import Column, Matrix, decoded, hole_of, number_of
from bridge.mapping.solve import RuleAxes, ShapeConflict, solve
from bridge.rules.syntax import Name

_MOST = 1_000_000


def by_shape(bound: BoundRule, side: int, branch: int, rows: NameRows, table: ArrayTable) -> NameRows:
    """A row for each index that the shape of a tensor counts, where no model says which leaves there are.

    **Raises:** `PlanError` where that are too many: an empty tensor may claim any extents.
    """
    assert bound.leaf is not None
    only = [i.name for i in bound.leaf.indices() if i.name not in rows.columns and not i.single]
    if not only:
        return rows
    numbers: list[int] = []
    positions: list[tuple[int, ...]] = []
    keys: list[int] = rows.ids.tolist()
    for row, key in enumerate(keys):
        try:
            known = solve(RuleAxes.of(bound.rule), {(side, branch): table.spec(key).shape})[0].known
        except ShapeConflict:
            known = {}
        count = prod(known.get(name, 1) for name in only)
        if count > _MOST:
            raise PlanError(
                f"key {quote(table.names[key])}",
                (
                    f"would become {count:,} leaves by the rule '{bound.rule}', more than the {_MOST:,} that one "
                    "key may have"
                ),
                "Give a model",
            )
        found = list(product(*(range(known.get(name, 1)) for name in only)))
        numbers += [row] * len(found)
        positions += found
    at, matrix = np.array(numbers, np.intp), np.array(positions, np.int64).reshape(len(positions), len(only))
    columns = {name: column[at] for name, column in rows.columns.items()}
    return NameRows(rows.ids[at], columns | {name: matrix[:, n] for n, name in enumerate(only)})


def by_leaves(bound: BoundRule, name: Name, rows: NameRows, kept: Sequence[Column | None], among: Matrix) -> NameRows:
    """A row for each leaf that a model has.

    **Arguments:**

    - `name`: the leaf's name without the indices that are axes.
    - `kept`: its numbers, as far as a key tells them.
    - `among`: the numbers of the model's names.
    """
    numbers: list[Numbers] = []
    leaves: list[Numbers] = []
    for row in range(len(rows.ids)):
        fits = np.ones(len(among), bool)
        for axis, column in enumerate(kept):
            if column is not None:
                fits &= among[:, axis] == column[row]
        leaves.append(np.flatnonzero(fits))
        numbers.append(np.full(len(leaves[-1]), row, np.intp))
    at, to = np.concatenate(numbers), np.concatenate(leaves)
    columns = {index: column[at] for index, column in rows.columns.items()}
    inside = np.ones(len(at), bool)
    for hole in filter(None, map(hole_of, name.segments)):
        axis = _number_before(name, hole)
        if kept[axis] is None:
            selected, positions = decoded(hole, bound.sizes, among[to, axis])
            inside &= True if selected is None else selected
            columns |= zip((index.name for index in hole.indices), positions, strict=True)
    return NameRows(rows.ids[at], columns).at(inside)


def _number_before(name: Name, hole: object) -> int:
    """How many numbers stand in a name before a hole."""
    before = name.segments[: next(n for n, segment in enumerate(name.segments) if segment and segment[0] is hole)]
    return sum(hole_of(segment) is not None or number_of(segment) is not None for segment in before)
