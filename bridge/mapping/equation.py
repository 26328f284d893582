"""What bound rules come to: arrivals, which concrete rules are spelled from, and equations of keys and leaves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bridge.mapping.arrays import ArrayTable, Numbers, Shape
from bridge.mapping.bound import BoundRule, NameRows
from bridge.mapping.indexmap import ParametricMap, oversized, stacked
from bridge.mapping.landing import Landing, Standing
from bridge.mapping.pattern import Column, IndexColumns, Mask, Matrix
from bridge.mapping.problem import Conflict, Mismatched, Problems
from bridge.rules.options import Options
from bridge.rules.rule import Rule

if TYPE_CHECKING:
    from bridge.mapping.solve import RuleAxes

Texts = Callable[[], Sequence[str]]


class Arrival:
    """A bound rule as it came to names of the model that are alike: what its concrete rules are spelled from.

    `kept` are the numbers that stay in the leaf's name, by row; `whole` says that these are all that the rule has.
    """

    __slots__ = ("bound", "kept", "landing", "standing", "whole")

    def __init__(
        self, bound: BoundRule, landing: Landing | None, standing: Standing, kept: Sequence[Matrix], whole: bool
    ) -> None:
        self.bound, self.landing, self.standing, self.kept, self.whole = bound, landing, standing, kept, whole


class ConcreteRule:
    """What a rule of the user's, by its number, came to; `texts` spells it when asked, which a load does not."""

    __slots__ = ("number", "texts")

    def __init__(self, number: int, texts: Texts) -> None:
        self.number, self.texts = number, texts


class Dropped:
    """Keys that no leaf gets: a rule drops them, or a layout uses them up (`zeros`: the way back writes zeros)."""

    __slots__ = ("bound", "ids", "text", "zeros")

    def __init__(self, bound: BoundRule, ids: Numbers, text: Callable[[], str], zeros: bool) -> None:
        self.bound, self.ids, self.text, self.zeros = bound, ids, text, zeros


class Landed:
    """Rows of one side and branch, with the numbers that stay in the leaf's name and the name that each lands on."""

    __slots__ = ("branch", "kept", "names", "rows", "side")

    def __init__(self, side: int, branch: int, rows: NameRows, kept: Sequence[Column], names: Numbers) -> None:
        self.side, self.branch, self.rows, self.kept, self.names = side, branch, rows, kept, names

    def at(self, which: Mask) -> Landed:
        """Some of them."""
        if which.all():
            return self
        kept = [column[which] for column in self.kept]
        return Landed(self.side, self.branch, self.rows.at(which), kept, self.names[which])


def stack_names(depth: int) -> tuple[str, ...]:
    """The variables of the leading axes of a stacked leaf; no rule can spell them."""
    return tuple(f"@{n}" for n in range(depth))


class TermPosition(NamedTuple):
    """Where a key takes part: in which term of the user's sum, on which key side and branch of the equation's rule."""

    term: int
    side: int
    branch: int


class KeyRun:
    """Keys that one bound rule brings to one position of an equation, row by row.

    `ids` are the keys, `groups` says which of the layers that the equation holds for, `leaves` which leaf of it, in the
    position's branch. `columns` are the positions of indices; those of leading axes are called as `stack_names` says.
    """

    __slots__ = ("bound", "columns", "groups", "ids", "leaves", "side")

    def __init__(
        self, bound: BoundRule | None, side: int, ids: Numbers, groups: Numbers, leaves: Numbers, columns: IndexColumns
    ) -> None:
        self.bound, self.side, self.ids, self.groups = bound, side, ids, groups
        self.leaves, self.columns = leaves, columns

    def at(self, rows: Numbers) -> KeyRun:
        """Some of the rows."""
        columns = {name: column[rows] for name, column in self.columns.items()}
        return KeyRun(self.bound, self.side, self.ids[rows], self.groups[rows], self.leaves[rows], columns)

    def stacks(self, depth: int) -> Matrix:
        """The places along the leading axes, shape `(rows, depth)`."""
        if not depth:
            return np.empty((len(self.ids), 0), np.int64)
        return np.stack([self.columns[name] for name in stack_names(depth)], axis=1)


class LeafEquation:
    """One rule, the keys at each of its positions, and the leaves that they fill.

    `rule` has the axes; without one tensors are as they are. `depth` axes stand in front of those. Each place is the
    sum of `terms` tensors. `others` are the leaves of each layer by branch, where a layout says them.
    """

    def __init__(
        self, rule: Rule | None, depth: int, terms: int, options: Options, texts: Callable[[], Sequence[str]]
    ) -> None:
        self.rule, self.depth, self.terms, self.options, self.texts = rule, depth, terms, options, texts
        self.runs: dict[TermPosition, list[KeyRun]] = {}
        self.others: dict[int, Sequence[int]] = {}
        self.known: dict[tuple[int, ...], int] = {}

    def numbered(self, kept: Sequence[Column], count: int) -> Numbers:
        """The layers that numbers in the leaf's name tell apart, as one number for each row."""
        if not kept:
            return np.zeros(count, np.intp)
        if len(kept) == 1:
            return kept[0]
        rows = zip(*(column.tolist() for column in kept), strict=True)
        return np.array([self.known.setdefault(row, len(self.known)) for row in rows], np.intp)

    @property
    def rule_axes(self) -> RuleAxes | None:
        """The axes of the rule, those of the stack in front."""
        leaf = None if self.rule is None else self.rule.leaf
        if self.rule is None or leaf is None or leaf.axes is None:
            return None
        from bridge.mapping.solve import RuleAxes  # rules without axes need none of it

        return RuleAxes.of(self.rule, self.depth)

    @property
    def variables(self) -> frozenset[str]:
        """Indices that are one number for each key, because a name holds them or a stack has them as an axis."""
        if self.rule is None:
            return frozenset(stack_names(self.depth))
        sides = self.rule.keys if self.rule.leaf is None else (*self.rule.keys, self.rule.leaf)
        return frozenset({index.name for side in sides for index in side.name.indices()} | {*stack_names(self.depth)})

    def arrive(self, position: TermPosition, run: KeyRun) -> None:
        """Add keys."""
        self.runs.setdefault(position, []).append(run)


class Leaves:
    """What equations fill: the leaves of a model, or where there is none those that the keys make, as they come.

    `derived` are the shapes that keys give to leaves without a model.
    """

    def __init__(self, table: ArrayTable | None) -> None:
        self.given = table is not None
        self._names: list[str] = []
        self.table = ArrayTable(self._names, np.empty(0, np.intp), []) if table is None else table
        self._numbers: dict[str, int] = {}
        self.derived: dict[int, Shape] = {}

    def number(self, name: str) -> int:
        """The number of a leaf that a key makes."""
        number = self._numbers.setdefault(name, len(self._numbers))
        if number == len(self._names):
            self._names.append(name)
        return number

    def name(self, number: int) -> str:
        """The name of a leaf."""
        return self.table.names[number]

    def shape(self, number: int) -> Shape | None:
        """The shape of a leaf; `None` where there is no model and no key has given it one."""
        return self.table.spec(number).shape if self.given else self.derived.get(number)


class PlainSolver:
    """Finds the maps of rules without axes.

    `failed` are leaves whose shapes do not fit, `known_holes` places of leaves that stay empty for that reason and are
    not reported.
    """

    def __init__(self, table: ArrayTable, leaves: Leaves, problems: Problems) -> None:
        self.table, self.leaves, self.problems = table, leaves, problems
        self.key_shapes = _Shapes(table)
        self.leaf_shapes = _Shapes(leaves.table)
        self.failed: set[str] = set()
        self.known_holes: set[str] = set()

    def plain(self, equation: LeafEquation, run: KeyRun) -> list[tuple[ParametricMap, Numbers | None]]:
        """The maps of keys that are not changed, by the shapes of key and leaf."""
        if not self.leaves.given:
            self.derive_all(equation, run)
        names, depth = stack_names(equation.depth), equation.depth
        keys, leaves = self.key_shapes.of(run.ids), self.leaf_numbers(run.leaves)
        pairs = keys * (int(leaves.max(initial=0)) + 1) + leaves
        found: list[tuple[ParametricMap, Numbers | None]] = []
        wrong: list[int] = []
        distinct, first = ([pairs[0]], [0]) if (pairs == pairs[0]).all() else np.unique(pairs, return_index=True)
        for pair, row in zip(distinct, first, strict=True):
            shape, wanted = self.table.spec(int(run.ids[row])).shape, self.shape(int(run.leaves[row]))
            rows = None if len(distinct) == 1 else np.flatnonzero(pairs == pair)
            parametric = stacked(shape, wanted, names)
            if parametric is not None:
                found.append((parametric, rows))
            else:
                wrong += range(len(pairs)) if rows is None else rows.tolist()
        for row in sorted(wrong):
            wanted = self.shape(int(run.leaves[row]))
            self.mismatch(equation, run, row, wanted[depth:] if len(wanted) >= depth else None)
        return found

    def leaf_numbers(self, leaves: Numbers) -> Numbers:
        """Leaves by shape: equal numbers, equal shapes."""
        if self.leaves.given:
            return self.leaf_shapes.of(leaves)
        known: dict[Shape | None, int] = {}
        return np.array([known.setdefault(self.leaves.shape(n), len(known)) for n in leaves.tolist()], np.intp)

    def shape(self, leaf: int) -> Shape:
        """The shape of a leaf that is known."""
        shape = self.leaves.shape(leaf)
        assert shape is not None
        return shape

    def derive_all(self, equation: LeafEquation, run: KeyRun) -> None:
        """Where there is no model: the shapes that keys, stacked or not, give to their leaves."""
        by_leaf: dict[int, list[int]] = {}
        for row, leaf in enumerate(run.leaves.tolist()):
            by_leaf.setdefault(leaf, []).append(row)
        stacks = run.stacks(equation.depth)
        for leaf, rows in by_leaf.items():
            lead: Shape = tuple((stacks[rows].max(axis=0) + 1).tolist())
            self.derive(leaf, (*lead, *self.table.spec(int(run.ids[rows[0]])).shape))

    def derive(self, leaf: int, shape: Shape) -> None:
        """Where there is no model: a leaf has the shape that its keys give it, all of them the same."""
        if self.leaves.given:
            return
        name = self.leaves.name(leaf)
        if self.leaves.derived.setdefault(leaf, shape) != shape and name not in self.failed:
            self.failed.add(name)
            both = f"{self.leaves.derived[leaf]} and {shape}"
            text = f"its keys make its shape both {both}: send them to leaves of their own"
            self.problems.conflicts.append(Conflict(name, text))
        elif name not in self.failed and (reason := oversized(shape)) is not None:
            self.failed.add(name)
            self.problems.conflicts.append(Conflict(name, f"would have {reason}"))

    def key_shape(self, run: KeyRun, row: int) -> Shape:
        """The shape of one key."""
        return self.table.spec(int(run.ids[row])).shape

    def mismatch(self, equation: LeafEquation, run: KeyRun, row: int, wanted: Shape | None, reason: str = "") -> None:
        """Report the shape of one key."""
        leaf, key = self.leaves.name(int(run.leaves[row])), self.table.names[int(run.ids[row])]
        place = place_text(run, equation.depth, row)
        self.problems.mismatched.append(Mismatched(leaf, key, wanted, self.key_shape(run, row), reason, place))


class _Shapes:
    """The shapes of a table's arrays as numbers: equal numbers, equal shapes."""

    def __init__(self, table: ArrayTable) -> None:
        known: dict[Shape, int] = {}
        self.kinds = table.kinds
        self.numbers = np.array([known.setdefault(spec.shape, len(known)) for spec in table.specs], np.intp)

    def of(self, arrays: Numbers) -> Numbers:
        """The shape of each array."""
        return self.numbers[self.kinds[arrays]]


def place_text(run: KeyRun, depth: int, row: int) -> str:
    """A place along the leading axes: `[7]`, or nothing."""
    found = [int(run.columns[name][row]) for name in stack_names(depth)]
    return f"[{', '.join(map(str, found))}]" if found else ""
