"""The names of a model that the leaf side of a rule matches: where saving by rules begins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import combinations
from typing import NamedTuple

import numpy as np

from bridge._errors import PlanError
from bridge._text import quote
from bridge.mapping.bind import INFERENCE
from bridge.mapping.landing import ModelNames, Port
from bridge.mapping.names import NameMatch, matched
from bridge.mapping.pattern import Mask, NamePattern
from bridge.rules.check import all_indices
from bridge.rules.rule import Rule
from bridge.rules.syntax import Axes, Hole, Index, Name


class LeafPart(NamedTuple):
    """What of a leaf a key is written from: a part, by the selections of its axes, or a term of a layout's sum."""

    leaf: int
    part: str
    term: int | None


class NamedLeaves(NamedTuple):
    """Names of the model that a leaf side matches, read so that `axes` of its segments are leading axes."""

    match: NameMatch
    axes: tuple[int, ...]
    kept: Name


class LeafMatcher:
    """Matches rules with the names of one model, from their leaf side.

    `depths` are how many leading axes of a leaf are a stack's, by the layouts that speak of it, `layers` where these
    stand; `stacked` are leaves of layers with a layout whose stack a rule does not take apart, as inference need not.
    """

    def __init__(self, names: ModelNames) -> None:
        self.names = names
        model = names.model
        self.depths: dict[int, set[int]] = {}
        self.layers: dict[int, str] = {}
        for number, layer in enumerate(model.placed):
            for rule in layer.rules if not layer.whole else ():
                for leaf in names.filled_by(number, rule) if rule.leaf is not None else ():
                    self.depths.setdefault(leaf, set()).add(layer.depth)
                    self.layers[leaf] = layer.prefix
        ports = list(model.ports())
        order = {name: rank for rank, name in enumerate(dict.fromkeys([*ports, *model.leaves, *model.aliases]))}
        self.ranks = np.array([order[name] for name in names.all.names], np.intp)
        self.stacked: dict[int, Rule] = {}

    def named(self, rule: Rule) -> Iterator[NamedLeaves]:
        """The names of the model that a rule's leaf side matches. Fewer axes go first."""
        assert rule.leaf is not None
        index = self.names.index(explicit=rule.leaf.axes is not None)
        segments, sizes, loose = rule.leaf.name.segments, dict(rule.sizes), len(dropped(rule, 0))
        holes = [n for n, segment in enumerate(segments) if len(segment) == 1 and isinstance(segment[0], Hole)]
        taken = np.zeros(len(index.names), bool)
        for count in range(len(holes) + 1):
            now = np.zeros(len(index.names), bool)
            for axes in combinations(holes, count):
                kept = Name(tuple(s for n, s in enumerate(segments) if n not in axes) or ((),))
                pattern = NamePattern(kept)
                for family in index.families.values():
                    for part in family.singles() if pattern.numeric and family.numbers.shape[1] else (family,):
                        match = matched(pattern, part, sizes)
                        if match is None:
                            continue
                        ids = match.family.ids
                        fits = np.array([self.fits(rule, n, count + loose) for n in ids.tolist()], bool) & ~taken[ids]
                        fits &= _counted_whole(rule, match, [self.leaf(n) for n in ids.tolist()], axes, self.names)
                        if (now[ids] & fits).any():
                            twice = index.names[int(ids[np.flatnonzero(now[ids] & fits)[0]])]
                            raise PlanError(
                                f"leaf {quote(twice)}",
                                f"can be saved in two ways by the rule '{rule}'",
                                "Write rules that say which of its indices are axes of the leaf",
                            )
                        now[ids[fits]] = True
                        if fits.any():
                            yield NamedLeaves(match if fits.all() else _at(match, fits), axes, kept)
            taken |= now

    def fits(self, rule: Rule, name: int, depth: int) -> bool:
        """Whether a rule with so many axes in front can speak of what stands at a name."""
        assert rule.leaf is not None
        leaf = self.leaf(name)
        if rule.leaf.axes is None:
            ports = [port for port in self.ports(name) if port.depth == depth and (rule is INFERENCE or not port.whole)]
            if not ports and leaf >= 0 and (depths := self.depths.get(leaf)):
                if max(depths) > depth:
                    self.stacked.setdefault(leaf, rule)
                if depth not in depths or self.ports(name):
                    return False
            if not ports and self.ports(name):
                return False
        return leaf >= 0 and len(self.names.table.spec(leaf).shape) >= depth

    def ports(self, name: int) -> list[Port]:
        """Where a name comes in at layouts. What a layout drops has no values to save."""
        return self._filling[self._standing[name]]

    @cached_property
    def _standing(self) -> list[int]:
        return self.names.standing.tolist()

    @cached_property
    def _filling(self) -> list[list[Port]]:
        """The ports of each kind of name that fill leaves."""
        return [[port for port in kind.ports if port.rule.leaf is not None] for kind in self.names.kinds]

    def leaf(self, name: int) -> int:
        """The leaf behind a name, or behind the first of its ports; -1 without one."""
        return self._leaves[name]

    @cached_property
    def _leaves(self) -> list[int]:
        leaves: list[int] = self.names.leaves.tolist()
        for name, placed in self.names.placed.items():
            ports = self.names.kinds[self._standing[name]].ports
            filling = [(port, at) for port, at in zip(ports, placed, strict=True) if port.rule.leaf is not None]
            for port, at in filling[:1]:
                leaves[name] = self.names.filled_by(at, port.rule)[port.branch]
        return leaves

    def free(self, rule: Rule, found: Sequence[NamedLeaves]) -> Mask:
        """Which names a rule writes: of several spellings of a parameter the first, PyTorch's before the leaf's own."""
        assert rule.leaf is not None
        model, explicit = self.names.model, rule.leaf.axes is not None
        free = np.zeros(len(self.names.all.names), bool)
        ids = np.concatenate([named.match.family.ids for named in found]) if found else np.empty(0, np.intp)
        if explicit or (not model.placed and not model.aliases and not model.fills):
            free[ids] = True
            return free
        regions: dict[tuple[int, str, str | None], tuple[int, Rule]] = {}
        saved: dict[int, int] = {}
        for name in ids[np.argsort(self.ranks[ids], kind="stable")].tolist():
            claims: dict[tuple[int, str, str | None], tuple[int, Rule]] = {}
            for number, port in enumerate(self.names.kinds[int(self.names.standing[name])].ports):
                if port.rule.leaf is not None:
                    placed = self.names.placed[name][number]
                    leaf = self.names.filled_by(placed, port.rule)[port.branch]
                    claims[leaf, part_of(port.rule.leaf.axes), model.placed[placed].tied_at] = placed, port.rule
            if claims:
                free[name] = all(regions.get(region, owner) == owner for region, owner in claims.items())
                if free[name]:
                    regions |= claims
                    saved |= dict.fromkeys((leaf for leaf, _, _ in claims), -1)
                continue
            leaf = int(self.names.leaves[name])
            tied = self.names.kinds[int(self.names.standing[name])].tied
            own = self.names.table.names[leaf]
            free[name] = tied or (own not in model.fills and saved.setdefault(leaf, name) == name)
        return free

    def check_counted(self, rule: Rule, named: NamedLeaves) -> None:
        """A bound that counts from the end needs a checkpoint's keys, or an option that says how many there are."""
        sizes = dict(rule.sizes)
        for index in (index for side in rule.keys for index in side.name.indices()):
            if index.selection is not None and not index.selection.bounded and index.name not in sizes:
                leaf = self.names.table.names[self.leaf(int(named.match.family.ids[0]))]
                raise PlanError(
                    f"leaf {quote(leaf)}",
                    (
                        f"cannot be saved by the rule '{rule}': '{index}' counts from the end, and the model does not "
                        "say of how many"
                    ),
                    f"Add their number to the rule, such as '; {index.name}=4'",
                )

    def targets(self, rule: Rule, name: int, depth: int) -> tuple[LeafPart, ...]:
        """What a rule writes at a name."""
        assert rule.leaf is not None
        found: list[LeafPart] = []
        if rule.leaf.axes is None and self.ports(name):
            for number, port in enumerate(self.names.kinds[int(self.names.standing[name])].ports):
                if port.rule.leaf is not None and port.depth == depth:
                    leaf = self.names.filled_by(self.names.placed[name][number], port.rule)[port.branch]
                    term = port.side if len(port.rule.keys) > 1 else None
                    found.append(LeafPart(leaf, part_of(port.rule.leaf.axes), term))
        return tuple(found) or (LeafPart(self.leaf(name), part_of(rule.leaf.axes), None),)


def part_of(axes: Axes | None) -> str:
    """Which part of a leaf axes with selections speak of; rules that fill all of it are alternatives."""
    found = (factor for axis in axes or () for factor in getattr(axis, "factors", ()))
    return " ".join(str(factor) for factor in found if isinstance(factor, Index) and factor.selection is not None)


def named_hole(name: Name, at: int) -> Hole:
    """The index that a segment of a name is."""
    piece = name.segments[at][0]
    assert isinstance(piece, Hole)
    return piece


def dropped(rule: Rule, side: int) -> list[str]:
    """Indices of a key that the leaf side gives no place: they are axes in front, in the key's order."""
    assert rule.leaf is not None
    placed = {index.name for index in all_indices(rule.leaf)}
    return [i.name for i in rule.keys[side].name.indices() if i.name not in placed and not i.single]


def _at(match: NameMatch, which: Mask) -> NameMatch:
    columns = {name: column[which] for name, column in match.columns.items()}
    return NameMatch(match.family.at(which), None, columns, match.wilds, match.labels)


def _counted_whole(rule: Rule, match: NameMatch, leaves: Sequence[int], axes: Sequence[int], names: ModelNames) -> Mask:
    """The names for which every index that a rule counts is there as often as it says, as an axis or in names."""
    assert rule.leaf is not None
    sizes = dict(rule.sizes)
    counted = {
        i.name: len(i.selection.positions(sizes[i.name])) if i.selection else sizes[i.name]
        for i in rule.keys[0].name.indices()
        if i.name in sizes
    }
    whole = np.ones(len(leaves), bool)
    for axis, at in enumerate(axes):
        hole = named_hole(rule.leaf.name, at)
        count = counted.get(hole.indices[0].name) if len(hole.indices) == 1 else None
        if count is not None:
            extents = [names.table.spec(leaf).shape[axis] if leaf >= 0 else -1 for leaf in leaves]
            whole &= np.array([extent == count for extent in extents], bool)
    for name, column in match.columns.items():
        if name in counted and len(np.unique(column)) != counted[name]:
            whole[:] = False
    return whole
