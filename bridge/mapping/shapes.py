"""Which maps the keys of an equation have: shapes are solved, once for all layers that are alike; what does not fit is
reported key by key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple, TypeAlias

import numpy as np

from bridge.mapping.arrays import Numbers, Shape
from bridge.mapping.equation import KeyRun, LeafEquation, PlainSolver, TermPosition, place_text
from bridge.mapping.indexmap import ParametricMap
from bridge.mapping.lower import lower
from bridge.mapping.problem import Conflict
from bridge.mapping.solve import RuleAxes, ShapeConflict, SideBranch, expected, solve

PositionMaps: TypeAlias = "dict[TermPosition, list[tuple[ParametricMap, Numbers | None]]]"
"""For each position the maps of its keys, each with the rows that it holds for (`None`: all)."""


class AlikeLayers(NamedTuple):
    """Layers of an equation that are alike: the rows of each position (`None`: all), and a leaf of each branch."""

    rows: Mapping[TermPosition, Numbers | None]
    leaves: Mapping[int, int]


class AxesSolver(PlainSolver):
    """Finds the maps of rules with axes."""

    def __init__(self, plain: PlainSolver) -> None:
        super().__init__(plain.table, plain.leaves, plain.problems)
        self.failed, self.known_holes = plain.failed, plain.known_holes
        self.solved: dict[object, dict[TermPosition, ParametricMap]] = {}

    def maps(self, equation: LeafEquation, runs: Mapping[TermPosition, KeyRun]) -> PositionMaps:
        """The maps of all keys of an equation."""
        rule_axes = equation.rule_axes
        assert rule_axes is not None
        found: PositionMaps = {position: [] for position in runs}
        for layers in self.alike(equation, runs):
            part = {p: runs[p] if rows is None else runs[p].at(rows) for p, rows in layers.rows.items()}
            for position, parametric in self.layers(equation, rule_axes, part, layers.leaves).items():
                fits = self.fitting(part[position], parametric)
                rows = layers.rows[position]
                found[position].append((parametric, rows if fits is None else fits if rows is None else rows[fits]))
        return found

    def fitting(self, run: KeyRun, parametric: ParametricMap) -> Numbers | None:
        """The rows whose keys have the shape that a map is for; `None` where all have."""
        kinds = self.key_shapes.of(run.ids)
        if (kinds == kinds[0]).all() and self.key_shape(run, 0) == parametric.index_map.key_shape:
            return None
        rows = [row for row in range(len(kinds)) if self.key_shape(run, row) == parametric.index_map.key_shape]
        return np.array(rows, np.intp)

    def alike(self, equation: LeafEquation, runs: Mapping[TermPosition, KeyRun]) -> Iterator[AlikeLayers]:
        """The layers of an equation, those together whose keys and leaves have the same shapes."""
        order = list(runs)
        groups, labels = np.unique(np.concatenate([runs[p].groups for p in order]), return_inverse=True)
        by_position = dict(zip(order, np.split(labels, np.cumsum([len(runs[p].ids) for p in order])[:-1]), strict=True))
        leaves: dict[int, Numbers] = {}
        for position, run in runs.items():
            leaves.setdefault(position.branch, np.full(len(groups), -1, np.intp))[by_position[position]] = run.leaves
        if equation.others:
            table = np.array([equation.others[group] for group in groups.tolist()], np.intp)
            leaves = {branch: table[:, branch] for branch in range(table.shape[1])}
        if len(groups) == 1:
            yield AlikeLayers(dict.fromkeys(order), {branch: int(found[0]) for branch, found in leaves.items()})
            return
        columns = [
            self.leaf_shapes.of(found) if self.leaves.given else np.arange(len(groups)) for found in leaves.values()
        ]
        for position, run in runs.items():
            columns.append(_one_shape(self.key_shapes.of(run.ids), by_position[position], len(groups)))
        _, first, kinds = np.unique(np.stack(columns, axis=1), axis=0, return_index=True, return_inverse=True)
        for kind, layer in enumerate(first.tolist()):
            rows = {p: np.flatnonzero(kinds.ravel()[by_position[p]] == kind) for p in order}
            found = {branch: int(numbers[layer]) for branch, numbers in leaves.items() if numbers[layer] >= 0}
            yield AlikeLayers({p: r for p, r in rows.items() if len(r)}, found)

    def layers(
        self,
        equation: LeafEquation,
        rule_axes: RuleAxes,
        runs: Mapping[TermPosition, KeyRun],
        leaves: Mapping[int, int],
    ) -> dict[TermPosition, ParametricMap]:
        """The maps of layers that are alike."""
        if not self.leaves.given:
            rule_axes = RuleAxes(rule_axes.sides, rule_axes.pairing, {**_counts(runs), **rule_axes.sizes})
        positions: dict[SideBranch, TermPosition] = {}
        for position in sorted(runs):
            positions.setdefault((position.side, position.branch), position)
        shapes: dict[SideBranch, Shape] = {}
        if self.leaves.given:
            shapes = {(len(rule_axes.sides) - 1, branch): self.shape(leaf) for branch, leaf in leaves.items()}
        shapes |= {place: self.key_shape(runs[position], 0) for place, position in positions.items()}
        wanted: dict[TermPosition, Shape | None] = {}
        for place, position in positions.items():
            first = runs[position].ids[0]
            same = {other for other, its in positions.items() if runs[its].ids[0] == first}
            wanted[position] = expected(rule_axes, shapes, place, same)
        told: set[int] = set()
        for place, position in positions.items():
            shapes[place] = self.agreed(equation, runs[position], wanted[position], told)
        try:
            found = self.solve(equation, rule_axes, shapes, positions, leaves)
        except ShapeConflict as conflict:
            names = {self.leaves.name(leaf) for run in runs.values() for leaf in run.leaves.tolist()}
            self.failed |= names | {self.leaves.name(leaf) for leaf in leaves.values()}
            self.conflict(equation, runs, wanted, str(conflict))
            return {}
        # Each term of a user's sum comes in at the same positions of a layout's rule.
        for position, run in runs.items():
            parametric = found.setdefault(position, found[positions[position.side, position.branch]])
            for row in range(len(run.ids)) if position not in wanted else ():
                if self.key_shape(run, row) != parametric.index_map.key_shape:
                    self.mismatch(equation, run, row, parametric.index_map.key_shape)
        return found

    def agreed(self, equation: LeafEquation, run: KeyRun, wanted: Shape | None, told: set[int]) -> Shape:
        """The one shape that the keys of a position must have; reports those that have another, each once."""
        kinds = self.key_shapes.of(run.ids)
        if (kinds == kinds[0]).all():
            return self.key_shape(run, 0)
        found = dict.fromkeys(self.key_shape(run, row) for row in range(len(run.ids)))
        wanted = wanted if wanted in found else next(iter(found))
        for row, key in enumerate(run.ids.tolist()):
            if self.key_shape(run, row) == wanted:
                continue
            if key in told:
                self.known_holes.add(self.leaves.name(int(run.leaves[row])) + place_text(run, equation.depth, row))
            else:
                told.add(key)
                self.mismatch(equation, run, row, wanted)
        return wanted

    def solve(
        self,
        equation: LeafEquation,
        rule_axes: RuleAxes,
        shapes: Mapping[SideBranch, Shape],
        positions: Mapping[SideBranch, TermPosition],
        leaves: Mapping[int, int],
    ) -> dict[TermPosition, ParametricMap]:
        """The maps by position. Equal rules with equal shapes are solved once."""
        key = (equation.rule, equation.depth, tuple(sorted(shapes.items())), tuple(positions.values()))
        if key in self.solved and self.leaves.given:
            return dict(self.solved[key])
        leaf_side = len(rule_axes.sides) - 1
        extents, rests = solve(rule_axes, shapes)
        if unsolved := extents.unsolved():
            words = f"{', '.join(unsolved[:-1])} and {unsolved[-1]} are" if len(unsolved) > 1 else f"{unsolved[0]} is"
            shown = ", ".join(f"{name}=…" for name in unsolved)
            raise ShapeConflict(f"the shapes do not say how wide {words}", f"Add '; {shown}'")
        found: dict[TermPosition, ParametricMap] = {}
        for place, position in positions.items():
            leaf = (leaf_side, position.branch)
            leaf_shape = shapes.get(leaf) or extents.shape(leaf, rests.get(position.branch))
            assert leaf_shape is not None
            self.derive(leaves[position.branch], leaf_shape)
            pair = (shapes[place], leaf_shape)
            found[position] = lower(rule_axes, extents, place, pair, equation.variables, equation.options.flip)
        self.solved[key] = found
        return dict(found)

    # Reports

    def conflict(
        self,
        equation: LeafEquation,
        runs: Mapping[TermPosition, KeyRun],
        wanted: Mapping[TermPosition, Shape | None],
        reason: str,
    ) -> None:
        """Report shapes that do not fit: the keys whose shape is not what the others make it."""
        rule = equation.texts()[0] if equation.terms == 1 else str(equation.rule)
        told: set[int] = set()
        for position, run in runs.items():
            shape = wanted.get(position)
            for row, key in enumerate(run.ids.tolist() if shape is not None else ()):
                if key not in told and self.key_shape(run, row) != shape:
                    self.mismatch(equation, run, row, shape, f"by the rule '{rule}'")
                    told.add(key)
        if not told:
            ids: list[int] = [key for run in runs.values() for key in run.ids.tolist()]
            keys = tuple(self.table.names[key] for key in ids)
            self.problems.conflicts.append(Conflict(f"rule '{rule}'", reason, keys))


def _one_shape(shapes: Numbers, labels: Numbers, count: int) -> Numbers:
    """For each of `count` layers the shape of its keys; a number of its own where they have several, -1 without."""
    low, high = np.full(count, np.iinfo(np.intp).max), np.full(count, -1, np.intp)
    np.minimum.at(low, labels, shapes)
    np.maximum.at(high, labels, shapes)
    return np.where(high < 0, -1, np.where(low == high, high, -2 - np.arange(count)))


def _counts(runs: Mapping[TermPosition, KeyRun]) -> dict[str, int]:
    """How many of each index there are, by the keys."""
    found: dict[str, int] = {}
    for run in runs.values():
        for name, column in run.columns.items():
            found[name] = max(found.get(name, 0), int(column.max()) + 1)
    return found
