"""Equations to blocks: every key gets its place in a leaf, and what does not fit is reported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from bridge._text import fold, quote
from bridge.mapping.arrays import Arrays, ArrayTable, Numbers, repeats
from bridge.mapping.block import Block, Term
from bridge.mapping.equation import KeyRun, LeafEquation, Leaves, PlainSolver, TermPosition
from bridge.mapping.indexmap import IndexMap, ParametricMap
from bridge.mapping.pattern import Matrix, formatted
from bridge.mapping.problem import Conflict, Missing, Problems, Unexpected

if TYPE_CHECKING:
    from bridge.mapping.shapes import AxesSolver, PositionMaps


class Filling:
    """Rows that one map brings to places of leaves: where it starts in each tensor and in each leaf."""

    __slots__ = ("index_map", "leaf_starts", "run", "starts")

    def __init__(self, run: KeyRun, index_map: IndexMap, starts: Matrix, leaf_starts: Matrix) -> None:
        self.run, self.index_map, self.starts, self.leaf_starts = run, index_map, starts, leaf_starts

    def at(self, rows: Numbers) -> Filling:
        """Some of the rows."""
        return Filling(self.run.at(rows), self.index_map, self.starts[rows], self.leaf_starts[rows])


class BlockBuilder:
    """Makes blocks of equations. `reported` are keys that problems speak of already."""

    def __init__(self, table: ArrayTable, leaves: Leaves, problems: Problems) -> None:
        self.table, self.leaves, self.problems = table, leaves, problems
        self.solver = PlainSolver(table, leaves, problems)
        self.axes: AxesSolver | None = None
        self.reported: set[str] = set()

    def blocks(self, equation: LeafEquation) -> Iterator[Block]:
        """The blocks of one equation, by branch."""
        runs = {position: joined_runs(found) for position, found in sorted(equation.runs.items())}
        if equation.terms > 1:
            runs = self.with_all_terms(equation, runs)
        for part in _copies_apart(runs) if equation.options.tie else (runs,):
            yield from self.by_branch(equation, part)

    def by_branch(self, equation: LeafEquation, runs: Mapping[TermPosition, KeyRun]) -> Iterator[Block]:
        """The blocks of some layers of an equation."""
        found = self.maps(equation, runs)
        for branch in sorted({position.branch for position in runs}):
            terms = [
                self.filled(run, found.get(position, ())) for position, run in runs.items() if position.branch == branch
            ]
            yield from self.joined(equation, [position for position in runs if position.branch == branch], terms)

    def maps(self, equation: LeafEquation, runs: Mapping[TermPosition, KeyRun]) -> PositionMaps:
        """The maps of all keys of an equation."""
        if equation.rule_axes is None or not runs:
            return {position: self.solver.plain(equation, run) for position, run in runs.items()}
        if self.axes is None:
            from bridge.mapping.shapes import AxesSolver  # many loads have neither axes nor layouts

            self.axes = AxesSolver(self.solver)
        return self.axes.maps(equation, runs)

    def with_all_terms(self, equation: LeafEquation, runs: dict[TermPosition, KeyRun]) -> dict[TermPosition, KeyRun]:
        """The runs without the layers where a term of a sum has no key; reports their leaves."""
        incomplete: set[int] = set()
        for branch in sorted({position.branch for position in runs}):
            present: dict[int, list[TermPosition]] = {}
            leaf_of: dict[int, int] = {}
            for position, run in runs.items():
                if position.branch == branch:
                    for group, leaf in dict(zip(run.groups.tolist(), run.leaves.tolist(), strict=True)).items():
                        present.setdefault(group, []).append(position)
                        leaf_of[group] = leaf
            for group, positions in present.items():
                if len(positions) < equation.terms:
                    incomplete.add(group)
                    run = runs[positions[0]]
                    key = int(run.ids[run.groups == group][0])
                    absent = self.absent(equation, positions, key)
                    self.problems.missing.append(Missing(self.leaf(leaf_of[group]), absent))
        if not incomplete:
            return runs
        out = np.array(sorted(incomplete))
        for run in runs.values():
            self.reported |= self.keys(run, np.flatnonzero(np.isin(run.groups, out)))
        kept = {position: run.at(np.flatnonzero(~np.isin(run.groups, out))) for position, run in runs.items()}
        return {position: run for position, run in kept.items() if len(run.ids)}

    def absent(self, equation: LeafEquation, positions: Sequence[TermPosition], key: int) -> str:
        """The key of the term that a sum lacks beside `key`, as far as its rule says."""
        run = next(run for run in equation.runs[positions[0]] if (run.ids == key).any())
        assert run.bound is not None
        bound, row = run.bound, int(np.flatnonzero(run.ids == key)[0])
        if len(bound.keys) > 1:
            own = equation.rule is bound.rule
            there = {position.side if own else position.term for position in positions}
            name = next(name for n, name in enumerate(bound.keys) if n not in there)
            columns = {index: column[row : row + 1] for index, column in run.columns.items()}
            if all(index.name in columns or index.single for index in name.indices()):
                return formatted(name, bound.sizes, columns, 1)[0]
            return str(name)
        assert equation.rule is not None
        ends = [str(side.name) for side in equation.rule.keys]
        here, tail = self.table.names[key], ends[positions[0].side]
        other = next(name for side, name in enumerate(ends) if side not in {each.side for each in positions})
        return here.removesuffix(tail) + other if here.endswith(tail) else other

    def filled(self, run: KeyRun, maps: Sequence[tuple[ParametricMap, Numbers | None]]) -> list[Filling]:
        """What the keys of one position fill, each place once."""
        found: list[Filling] = []
        for parametric, rows in maps:
            part = run if rows is None else run.at(rows)
            starts = parametric.starts(part.columns, len(part.ids))
            filling = Filling(part, parametric.index_map, starts.keys, starts.leaves)
            if not starts.inside.all():
                shape = parametric.index_map.leaf_shape
                for row in np.flatnonzero(~starts.inside).tolist():
                    reason = f"{quote(self.leaf(int(part.leaves[row])))} has no place for it: its shape is {shape}"
                    self.problems.unexpected.append(Unexpected(self.table.names[int(part.ids[row])], reason))
                filling = filling.at(np.flatnonzero(starts.inside))
            found.append(filling)
        return self.once(found) if _repeated(found) else found

    def once(self, found: Sequence[Filling]) -> list[Filling]:
        """Report places that are filled twice; the last one counts."""
        first: dict[tuple[int, ...], int] = {}
        last: dict[tuple[int, ...], tuple[int, int]] = {}
        twice: dict[int, dict[int, int]] = {}
        for number, filling in enumerate(found):
            rows = zip(filling.run.leaves.tolist(), filling.run.ids.tolist(), filling.leaf_starts.tolist(), strict=True)
            for row, (leaf, key, start) in enumerate(rows):
                place = (leaf, *start)
                if place in first:
                    twice.setdefault(leaf, {})[key] = first[place]
                first[place] = key
                last[place] = number, row
        for leaf, pairs in twice.items():
            others, keys = ([self.table.names[n] for n in side] for side in (pairs.values(), pairs))
            one, other = (" and ".join(quote(name) for name, _ in fold(names)) for names in (others, keys))
            text = f"filled by {one} and by {other}: drop one of them on purpose, with '-> _'"
            self.problems.conflicts.append(Conflict(self.leaf(leaf), text, (*keys, *others)))
        kept = [sorted(row for n, row in last.values() if n == number) for number in range(len(found))]
        return [filling.at(np.array(rows, np.intp)) for filling, rows in zip(found, kept, strict=True) if rows]

    def joined(
        self, equation: LeafEquation, positions: Sequence[TermPosition], terms: Sequence[list[Filling]]
    ) -> Iterator[Block]:
        """The blocks of one branch; places that a term of a sum leaves empty are reported."""
        if len(terms) == 1:
            yield from (self.block(equation, [filling]) for filling in terms[0] if len(filling.run.ids))
            return
        by_place = [_by_place(fillings) for fillings in terms]
        groups: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
        mismatched = {problem.name for problem in self.problems.mismatched}
        for place in dict.fromkeys(place for found in by_place for place in found):
            there = [place in found for found in by_place]
            if all(there):
                numbers, rows = zip(*(found[place] for found in by_place), strict=True)
                groups.setdefault(numbers, []).append(rows)
                continue
            term = there.index(True)
            number, row = by_place[term][place]
            run = terms[term][number].run
            self.reported.add(self.table.names[int(run.ids[row])])
            if self.leaf(place[0]) in mismatched:
                continue
            present = [position for position, is_there in zip(positions, there, strict=True) if is_there]
            absent = self.absent(equation, present, int(run.ids[row]))
            self.problems.missing.append(Missing(self.leaf(place[0]), absent, stack_text(run, equation.depth, row)))
        for numbers, rows in groups.items():
            columns = zip(*rows, strict=True)
            picked = [
                terms[term][number].at(np.array(column, np.intp))
                for term, (number, column) in enumerate(zip(numbers, columns, strict=True))
            ]
            yield self.block(equation, picked)

    def block(self, equation: LeafEquation, terms: Sequence[Filling]) -> Block:
        """Places that one rule fills; each term fills the same ones in the same order."""
        made = tuple([Term(term.index_map, Arrays(self.table, term.run.ids), term.starts) for term in terms])
        leaves = Arrays(self.leaves.table, terms[0].run.leaves)
        options = equation.options
        flags = options.scale, options.add, options.tie, options.copy
        return Block(leaves, made, terms[0].leaf_starts, *flags)

    def leaf(self, number: int) -> str:
        """The name of a leaf."""
        return self.leaves.name(number)

    def keys(self, run: KeyRun, rows: Numbers) -> set[str]:
        """The names of the keys in some rows."""
        return set(Arrays(self.table, run.ids[rows]))


def joined_runs(runs: Sequence[KeyRun]) -> KeyRun:
    """Keys of one position, one run after the other."""
    if len(runs) == 1:
        return runs[0]
    names = [name for name in runs[0].columns if all(name in run.columns for run in runs)]
    columns = {name: np.concatenate([run.columns[name] for run in runs]) for name in names}
    ids, groups = np.concatenate([run.ids for run in runs]), np.concatenate([run.groups for run in runs])
    return KeyRun(runs[0].bound, runs[0].side, ids, groups, np.concatenate([run.leaves for run in runs]), columns)


def _copies_apart(runs: Mapping[TermPosition, KeyRun]) -> Iterator[Mapping[TermPosition, KeyRun]]:
    """Runs in which no leaf has several layers: each copy that shares a leaf is compared with it by itself."""
    pairs = np.concatenate([np.column_stack([run.leaves, run.groups]) for run in runs.values()])
    if len(np.unique(pairs, axis=0)) == len(np.unique(pairs[:, 0])):
        yield runs
        return
    for group in np.unique(pairs[:, 1]):
        parts = {position: np.flatnonzero(run.groups == group) for position, run in runs.items()}
        yield {position: runs[position].at(rows) for position, rows in parts.items() if len(rows)}


def stack_text(run: KeyRun, depth: int, row: int) -> str:
    """A place along the leading axes: `[7]`, or nothing."""
    place: list[int] = run.at(np.array([row])).stacks(depth)[0].tolist() if depth else []
    return f"[{', '.join(map(str, place))}]" if place else ""


def _by_place(fillings: Sequence[Filling]) -> dict[tuple[int, ...], tuple[int, int]]:
    """For each place of a leaf the filling and the row that fills it."""
    found: dict[tuple[int, ...], tuple[int, int]] = {}
    for number, filling in enumerate(fillings):
        rows = zip(filling.run.leaves.tolist(), filling.leaf_starts.tolist(), strict=True)
        found |= {(leaf, *start): (number, row) for row, (leaf, start) in enumerate(rows)}
    return found


def _repeated(found: Sequence[Filling]) -> bool:
    """Whether some place of a leaf stands twice."""
    # Leaves of different ranks are different leaves.
    for rank in {filling.leaf_starts.shape[1] for filling in found}:
        alike = [filling for filling in found if filling.leaf_starts.shape[1] == rank]
        leaves = np.concatenate([filling.run.leaves for filling in alike])
        if repeats([leaves, *np.concatenate([filling.leaf_starts for filling in alike]).T]):
            return True
    return False
