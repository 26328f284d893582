"""Rules read from the leaf side: the keys, with their shapes, that a rule spells for the leaves of a model.

What is found here goes through the same proof as the keys of a checkpoint: what is written is what the rules would
read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import pairwise, product
from typing import NamedTuple

import numpy as np

from bridge._errors import PlanError
from bridge._text import quote
from bridge.mapping.arrays import Numbers, Shape
from bridge.mapping.bound import FRESH, NameChoices, NameRows, WildcardTaken, carried
from bridge.mapping.landing import ModelNames, Port
from bridge.mapping.leafnames import LeafMatcher, LeafPart, NamedLeaves, dropped, named_hole
from bridge.mapping.pattern import IndexColumns, Matrix, decoded, encoded, formatted
from bridge.mapping.solve import RuleAxes, ShapeConflict, solve
from bridge.mapping.template import Spec
from bridge.rules.check import all_indices, branch_count, branch_picks, shaped_branch
from bridge.rules.rule import Rule
from bridge.rules.syntax import Hole, Index, Name, Wild


class SpelledKeys(NamedTuple):
    """Keys that a rule spells for one leaf: what each looks like, what they are written from, how the leaf was named.

    `places` are, for each key, the positions along the leading axes of the leaf that it fills, `as_named` the leaf
    side's name without the indices that are axes.
    """

    keys: Sequence[str]
    spec: Spec
    targets: tuple[LeafPart, ...]
    places: Sequence[tuple[int, ...]]
    as_named: Name


class KeySpeller:
    """Spells the keys of one model."""

    def __init__(self, names: ModelNames) -> None:
        self.names = names
        self.leaves = LeafMatcher(names)

    def spell(self, rule: Rule, beside: Collection[int] = ()) -> Iterator[SpelledKeys]:
        """The keys that a rule spells, but not for the leaves in `beside`.

        **Raises:** `PlanError` where the leaves do not tell a key's name or shape.
        """
        if rule.leaf is None:
            return
        found = list(self.leaves.named(rule))
        if found:
            self.leaves.check_counted(rule, found[0])
        free = self.leaves.free(rule, found)
        for named in found:
            ids = named.match.family.ids
            rows = np.flatnonzero(free[ids])
            if beside:
                rows = rows[[self.leaves.leaf(name) not in beside for name in ids[rows].tolist()]]
            if len(rows):
                yield from self.keys(rule, named, rows)

    # The keys

    def keys(self, rule: Rule, named: NamedLeaves, rows: Numbers) -> Iterator[SpelledKeys]:
        """The keys for some of the names that were matched."""
        match, sizes = named.match, dict(rule.sizes)
        family = match.family.at(rows)
        columns: IndexColumns = {name: column[rows] for name, column in match.columns.items()}
        assert rule.leaf is not None
        wilds = [piece for piece in named.kept.pieces() if isinstance(piece, Wild)]
        taken_names = {i.name for side in (*rule.keys, rule.leaf) for i in all_indices(side)}
        fresh = iter([name for name in FRESH if name not in taken_names])
        taken: list[WildcardTaken] = []
        for (text, at), wild in zip(match.wilds, wilds, strict=True):
            shown = text.removesuffix(".") if wild.deep else text
            taken.append(carried(shown, at, family, fresh, columns) if text else None)
        deep = tuple(wild.deep for wild in wilds)
        leaves = self.branches(rule, named, NameRows(family.ids, columns), tuple(taken), deep)
        for picks in _picks(rule, match.labels):
            settled = NameChoices(rule, sizes, tuple(taken), deep, picks, (), ())
            for side in range(len(rule.keys)):
                name = settled.spelled(rule.keys[side].name, side)
                for part, places, shape in self.shapes(rule, named, NameRows(family.ids, columns), side, picks, leaves):
                    yield from self.formatted(rule, named, name, part, places, shape)

    def branches(
        self, rule: Rule, named: NamedLeaves, rows: NameRows, taken: tuple[WildcardTaken, ...], deep: tuple[bool, ...]
    ) -> list[list[int]]:
        """For each branch of the choices that axes hold, the leaf that belongs to each row, -1 where there is none."""
        shaped = [pair for pair in rule.pairing if pair.shaped]
        if not shaped:
            return [[-1] * len(rows.ids)]
        own = next(_picks(rule, named.match.labels))
        found: list[list[int]] = []
        for branch in range(branch_count(shaped)):
            picked = iter(branch_picks(shaped, branch))
            picks = tuple([next(picked) if p.shaped else pick for p, pick in zip(rule.pairing, own, strict=True)])
            name = NameChoices(rule, dict(rule.sizes), taken, deep, picks, (), ()).spelled(named.kept, -1)
            texts = formatted(name, dict(rule.sizes), rows.columns, len(rows.ids))
            aliases = self.names.model.aliases
            found.append([self.names.numbers.get(aliases.get(text, text), -1) for text in texts])
        return found

    def formatted(
        self, rule: Rule, named: NamedLeaves, name: Name, rows: NameRows, places: Matrix, shape: Shape
    ) -> Iterator[SpelledKeys]:
        """The keys that a name spells for rows of positions."""
        assert rule.leaf is not None
        sizes, count = dict(rule.sizes), len(rows.ids)
        inside = np.ones(count, bool)
        for piece in name.pieces():
            if isinstance(piece, Hole):
                inside &= encoded(piece, sizes, rows.columns, count) >= 0
        rows, places = (rows, places) if inside.all() else (rows.at(inside), places[inside])
        if not len(rows.ids):
            return
        texts = formatted(name, sizes, rows.columns, len(rows.ids))
        listed: list[tuple[int, ...]] = list(map(tuple, places.tolist()))
        specs: dict[np.dtype, Spec] = {}
        # The rows of a leaf stand together.
        heads: list[int] = np.flatnonzero(np.diff(rows.ids, prepend=-1)).tolist()
        for first, stop in pairwise([*heads, len(texts)]):
            targets = self.leaves.targets(rule, int(rows.ids[first]), places.shape[1])
            dtype = self.names.table.spec(targets[0].leaf).dtype
            spec = specs.setdefault(dtype, Spec(dtype, shape))
            yield SpelledKeys(texts[first:stop], spec, targets, listed[first:stop], named.kept)

    def shapes(
        self,
        rule: Rule,
        named: NamedLeaves,
        rows: NameRows,
        side: int,
        picks: Sequence[int],
        leaves: Sequence[Sequence[int]],
    ) -> Iterator[tuple[NameRows, Matrix, Shape]]:
        """Rows for each key of one side, with their places in the leaf, those together whose keys have one shape."""
        assert rule.leaf is not None
        lead = [named_hole(rule.leaf.name, at) for at in named.axes]
        loose = dropped(rule, side)
        depth = len(lead) + len(loose)
        branch = shaped_branch(rule.pairing, picks)
        alike: dict[tuple[tuple[Shape | None, ...], tuple[Port, ...]], list[int]] = {}
        explicit = rule.leaf.axes is not None
        for row, name in enumerate(rows.ids.tolist()):
            ports = () if explicit else tuple([p for p in self.leaves.ports(name) if p.depth == depth][:1])
            found = [branches[row] for branches in leaves]
            found[branch] = self.leaves.leaf(name)
            shapes = tuple([None if leaf < 0 else self.names.table.spec(leaf).shape for leaf in found])
            alike.setdefault((shapes, ports), []).append(row)
        for (shapes, ports), members in alike.items():
            part, shape = rows.at(np.array(members, np.intp)), shapes[branch]
            assert shape is not None
            solved, known = self.solved(rule, shapes, ports, part, depth, side, branch)
            yield *self.spread(rule, part, shape, lead, loose, known, side), solved

    def solved(
        self,
        rule: Rule,
        shapes: Sequence[Shape | None],
        ports: Sequence[Port],
        rows: NameRows,
        depth: int,
        side: int,
        branch: int,
    ) -> tuple[Shape, Mapping[str, int]]:
        """The shape of a key of one side, and the extents of the indices that are axes of the leaf.

        `shapes` are those of the leaves of all branches, as far as the model has them.
        """
        assert rule.leaf is not None
        shape = shapes[branch]
        assert shape is not None
        if rule.leaf.axes is None and not (ports and ports[0].rule.leaf and ports[0].rule.leaf.axes is not None):
            return shape[depth:], {}
        try:
            if ports:
                return self.by_layout(rule, ports[0], int(rows.ids[0])), {}
            rule_axes = RuleAxes.of(rule, depth)
            known = {(len(rule.keys), n): found for n, found in enumerate(shapes) if found is not None}
            extents, rests = solve(rule_axes, known)
            found = extents.shape((side, branch), rests.get(branch))
            only = [i.name for i in rule.leaf.name.indices() if i.name not in _names(rule, side) and not i.single]
            if found is None and only:  # the tensor is as long as there are leaves
                counts = {name: int(rows.columns[name].max()) + 1 for name in only}
                axes = (rule.keys[side].axes or (), rule.leaf.axes or ())
                more, rest = solve(RuleAxes(axes, (), dict(rule.sizes) | counts), {(1, 0): shape})
                found = more.shape((0, 0), rest.get(0))
        except ShapeConflict as conflict:
            leaf = self.names.table.names[self.leaves.leaf(int(rows.ids[0]))]
            raise PlanError(
                f"leaf {quote(leaf)}", f"cannot be saved by the rule '{rule}': {conflict.problem}", conflict.advice
            ) from None
        if found is None:
            missing = ", ".join(f"{name}=…" for name in extents.unsolved())
            key = str(rule.keys[side].name)
            raise PlanError(
                f"key {quote(key)}",
                "has a shape that does not follow from the model",
                f"Add '; {missing}' to the rule '{rule}'",
            )
        return found, extents.known

    def by_layout(self, rule: Rule, port: Port, name: int) -> Shape:
        """The shape of a key that a layout reads."""
        number = next(n for n, p in enumerate(self.names.kinds[int(self.names.standing[name])].ports) if p == port)
        leaves = self.names.filled_by(self.names.placed[name][number], port.rule)
        side = len(port.rule.keys)
        shapes = {(side, branch): self.names.table.spec(leaf).shape for branch, leaf in enumerate(leaves)}
        extents, rests = solve(RuleAxes.of(port.rule, port.depth), shapes)
        found = extents.shape((port.side, port.branch), rests.get(port.branch))
        if found is None:
            shown = ", ".join(f"{name}=…" for name in extents.unsolved())
            raise ShapeConflict(
                f"the rule '{port.rule}' of its layout does not say how wide its keys are", f"Add '; {shown}'"
            )
        return found

    def grid(
        self,
        rule: Rule,
        rows: NameRows,
        extents: Shape,
        lead: Sequence[Hole],
        loose: Sequence[str],
        axes: Sequence[str],
    ) -> Matrix:
        """The places of a leaf that have keys, a row for each axis: along leading axes, and those of `axes`."""
        return np.indices(extents).reshape(len(extents), -1)

    def spread(
        self,
        rule: Rule,
        rows: NameRows,
        shape: Shape,
        lead: Sequence[Hole],
        loose: Sequence[str],
        known: Mapping[str, int],
        side: int,
    ) -> tuple[NameRows, Matrix]:
        """A row for each place along the leading axes, and along axes whose index stands in the key's name."""
        assert rule.leaf is not None
        names = _names(rule, side)
        axes = [f.name for f in rule.leaf.factors() if isinstance(f, Index) and f.name in names]
        extents = [*shape[: len(lead) + len(loose)], *(known.get(name, 0) for name in axes)]
        if not extents:
            return rows, np.empty((len(rows.ids), 0), np.int64)
        grid = self.grid(rule, rows, tuple(extents), lead, loose, axes)
        count, each = len(rows.ids), grid.shape[1]
        columns = {name: np.repeat(column, each) for name, column in rows.columns.items()}
        inside = np.ones(count * each, bool)
        for hole, numbers in zip(lead, grid, strict=False):
            selected, positions = decoded(hole, dict(rule.sizes), np.tile(numbers, count))
            inside &= True if selected is None else selected
            columns |= zip((index.name for index in hole.indices), positions, strict=True)
        columns |= {
            name: np.tile(numbers, count) for name, numbers in zip([*loose, *axes], grid[len(lead) :], strict=True)
        }
        places = np.tile(grid[: len(lead) + len(loose)], count).T
        return NameRows(np.repeat(rows.ids, each), columns).at(inside), places[inside]


def _names(rule: Rule, side: int) -> set[str]:
    return {index.name for index in rule.keys[side].name.indices()}


def _picks(rule: Rule, labels: Sequence[str]) -> Iterator[tuple[int, ...]]:
    """The branches that a leaf's name with these labels stands for: all of a choice that an axis of the leaf holds."""
    options: list[Sequence[int]] = []
    for pair in rule.pairing:
        at = pair.places[-1]
        options.append(range(pair.branches) if at is None else (pair.labels[-1].index(labels[at]),))
    return product(*options)
