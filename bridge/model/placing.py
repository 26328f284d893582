"""Layouts at their places in a model: the local rules and names of its layers become a `Template`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import equinox as eqx

from bridge.mapping.template import PlacedLayout, Spec, Template, branch_names
from bridge.model.layouts import Layout, OwnLayout, check_fits, layout_of, own_layout_of, parsed
from bridge.model.template import joined
from bridge.rules.rule import Rule
from bridge.rules.syntax import Axis, Index, Rest, Side, literal

if TYPE_CHECKING:
    from bridge.model.shared import Tie


class Placing:
    """The layouts of all layers of a model, and the ties between its leaves.

    `own` are layouts of the user's, `owned` the layers that have one.
    """

    def __init__(self, modules: Iterable[tuple[str, Any]], own: Sequence[OwnLayout] = ()) -> None:
        self.layouts: list[tuple[str, Layout]] = []
        self.kinds: dict[str, str] = {}
        self.owned: list[tuple[str, Any, OwnLayout]] = []
        self.ties: list[Tie] = []
        for name, module in modules:
            layout = layout_of(module, own)
            found = own_layout_of(module, own)
            if found is not None:
                self.owned.append((name, module, found))
            if layout:
                self.layouts.append((name, layout))
                self.kinds[name] = type(module).__name__
            if isinstance(module, eqx.nn.Shared):
                from bridge.model.shared import ties  # few models share a layer

                self.ties += ties(module, name)
        self.shown = {joined(at, own): joined(at, name) for at, lay in self.layouts for own, name in lay.shown.items()}

    def template(self, leaves: Mapping[str, Spec], spelled: Mapping[str, str], kind: str) -> Template:
        """The template of a model with `leaves`; `spelled` leads from keystr's spellings to them."""
        for at, layer, own in self.owned:
            check_fits(own, layer, at, leaves)
        placed = [one for at, layout in self.layouts for one in _placed(at, layout, leaves, self.kinds[at])]
        others = {joined(at, other): joined(at, own) for at, lay in self.layouts for other, own in lay.aliases.items()}
        others = {other: own for other, own in {**spelled, **others}.items() if own in leaves and other not in leaves}
        tied = self.tied(leaves)
        hints = {joined(at, name): text for at, lay in self.layouts for name, text in lay.hints.items()}
        if self.ties:
            copies = list(_tied_layouts(placed, tied))
            # A sum does not say what its terms were, so no copy of them can be compared.
            hints |= {key: hint for copy in copies for key, hint in _sums(copy)}
            placed += [
                *self.transposed(leaves),
                *self.own_copies(leaves),
                *(copy for copy in copies if len(copy.rules[0].keys) == 1),
            ]
            tied |= self.tied_aliases(tied)
        fills = {joined(at, own): value for at, lay in self.layouts for own, value in lay.fills.items()}
        return Template(
            leaves,
            tuple(placed),
            others | tied,
            frozenset(tied),
            {name: value for name, value in fills.items() if name in leaves},
            hints,
            kind,
        )

    def tied(self, leaves: Mapping[str, Spec]) -> dict[str, str]:
        """The names of leaves that a `Shared` took out of the tree, and the leaves that stand for them."""
        return {
            tie.copy: tie.kept
            for tie in self.ties
            if tie.permutation is None and tie.kept in leaves and tie.copy not in leaves
        }

    def transposed(self, leaves: Mapping[str, Spec]) -> Iterator[PlacedLayout]:
        """Ties between a matrix and its transpose."""
        for copy, kept, permutation in self.ties:
            # More axes could be a stack's, which the function that transposes did not know of.
            if permutation == (1, 0) and kept in leaves and len(leaves[kept].shape) == 2:
                rule = Rule(f"{Side(literal(copy))} [a b] -> {Side(literal(kept))} [b a]")
                yield PlacedLayout("", (rule,), tied_at="")

    def own_copies(self, leaves: Mapping[str, Spec]) -> Iterator[PlacedLayout]:
        """What the user's layouts call leaves that a `Shared` took out of their layers, as ties with what is kept."""
        owned = {at for at, _, _ in self.owned}
        rules = [(at, rule) for at, layout in self.layouts if at in owned for rule in map(parsed, layout.rules)]
        filling = {joined(at, str(rule.leaf.name)): (at, rule) for at, rule in rules if rule.leaf and not rule.keys[1:]}
        for copy, kept, permutation in self.ties:
            if copy in filling and copy not in leaves and kept in leaves:
                yield from _copied(*filling[copy], kept, len(leaves[kept].shape), permutation)

    def tied_aliases(self, tied: Mapping[str, str]) -> dict[str, str]:
        """The other names that the leaves of a layer have, at the copies of the layer."""
        return {
            joined(at, other): joined(prefix, own)
            for prefix, layout in self.layouts
            for other, own in layout.aliases.items()
            for at in _copies(joined(prefix, own), own, tied)
        }


def _placed(prefix: str, layout: Layout, leaves: Mapping[str, Spec], kind: str) -> Iterator[PlacedLayout]:
    """The rules of a layout whose leaves the model has, together where they see the same axes as a stack's."""
    rules: list[tuple[Rule, int | None]] = []
    for rule in map(parsed, layout.rules):
        names = [joined(prefix, name) for name in branch_names(rule, -1)] if rule.leaf is not None else []
        if all(name in leaves for name in names):
            rules.append((rule, len(leaves[names[0]].shape) if names else None))
    # What a leaf has more than its layer's axes are a stack's.
    fixed = {rank - _axes(rule) for rule, rank in rules if rank is not None and not _has_rest(rule)}
    fixed = {depth for depth in fixed if depth >= 0}
    by_depth: dict[int, list[Rule]] = {}
    depths: Sequence[int] = sorted(fixed)[:1] or [0]
    for rule, rank in rules:
        if rank is not None:
            most = rank - _axes(rule)
            if not _has_rest(rule):
                depths = range(most, most + 1) if most >= 0 else []
            else:
                # A rule that leaves axes open does not tell. Each reading is a rule; the indices that arrive choose.
                depths = list(fixed) if len(fixed) == 1 and max(fixed) <= most else range(most + 1)
        for depth in depths if rank is not None else depths[:1] or [0]:
            by_depth.setdefault(depth, []).append(rule)
    for depth, together in by_depth.items():
        yield PlacedLayout(prefix, tuple(together), depth, kind=kind)
    # A file may hold the stack as it is, or some of its axes: then the layout's rules leave them in front.
    least = min(by_depth, default=0)
    for depth in range(least):
        yield PlacedLayout(prefix, tuple(map(_stacked, by_depth[least])), depth, whole=True, kind=kind)


@cache
def _stacked(rule: Rule) -> Rule:
    """A layout's rule for a stack of its layers that is one tensor."""
    if rule.leaf is None:
        return rule
    keys, leaf = [_behind(side) for side in rule.keys], _behind(rule.leaf)
    return Rule(f"{' + '.join(map(str, keys))} -> {leaf}", **rule.options())


def _behind(side: Side) -> Side:
    """A side with other axes in front."""
    axes = side.axes or ()
    return Side(side.name, axes if any(isinstance(axis, Rest) for axis in axes) else (Rest(), *axes))


def _copied(at: str, rule: Rule, kept: str, rank: int, permutation: tuple[int, ...] | None) -> Iterator[PlacedLayout]:
    """A rule of the layer at `at`, whose leaf was taken out, for the leaf that is kept."""
    assert rule.leaf is not None
    key, axes, depths = rule.keys[0].axes, rule.leaf.axes or (), [rank - _axes(rule)]
    if permutation == (1, 0):
        if rank != 2 or (len(axes) != 2 and not _has_rest(rule)):
            return
        a, b = axes if len(axes) == 2 else (Axis((Index("a"),)), Axis((Index("b"),)))
        key, axes, depths = key if len(axes) == 2 else (a, b), (b, a), [0]
    elif permutation is not None:
        return
    elif _has_rest(rule):
        depths = list(range(depths[0] + 1)) or depths
    text = f"{Side(literal(joined(at, str(rule.keys[0].name))), key)} -> {Side(literal(kept), axes)}"
    for depth in depths if depths[0] >= 0 else ():
        yield PlacedLayout("", (Rule(text, **rule.options()),), depth, tied_at="")


def _axes(rule: Rule) -> int:
    """How many axes a rule gives to one layer's leaf, at the least."""
    assert rule.leaf is not None
    return sum(isinstance(axis, Axis) for axis in rule.leaf.axes or ())


def _has_rest(rule: Rule) -> bool:
    return rule.leaf is not None and len(rule.leaf.axes or ()) > _axes(rule)


def _tied_layouts(placed: Iterable[PlacedLayout], tied: Mapping[str, str]) -> Iterator[PlacedLayout]:
    """The layouts of layers whose leaves are shared, once more for the keys of each copy; one rule each."""
    for one in placed:
        for rule in one.rules:
            if rule.leaf is None:
                continue
            names = branch_names(rule, -1)
            places = [_copies(one.leaf(name), name, tied) for name in names]
            yield from (one._replace(rules=(rule,), tied_at=at) for at in places[0] if all(at in p for p in places))


def _sums(copy: PlacedLayout) -> Iterator[tuple[str, str]]:
    """What to say of the terms of a shared sum."""
    (rule,) = copy.rules
    if len(rule.keys) > 1 and rule.leaf is not None:
        for side in rule.keys:
            key = copy.key(str(side.name))
            yield key, f"a copy of '{copy.leaf(str(rule.leaf.name))}', which is a sum: drop it on purpose, '{key} -> _'"


def _copies(leaf: str, name: str, tied: Mapping[str, str]) -> list[str]:
    """Where copies of a layer stand that share `leaf`, which the layer itself calls `name`."""
    ends = [copy for copy, kept in tied.items() if kept == leaf and f".{copy}".endswith(f".{name}")]
    return [copy[: -len(name)].removesuffix(".") for copy in ends]
