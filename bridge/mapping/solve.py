"""Extents from shapes: every axis is an equation, solved one unknown at a time. Nothing is ever guessed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from bridge._text import plural
from bridge.mapping.equation import stack_names
from bridge.mapping.indexmap import Shape
from bridge.rules.check import Pairing, branch_count, branch_picks
from bridge.rules.rule import Rule
from bridge.rules.syntax import Axes, Axis, Factor, Index, JoinedParts, PartExtent, Rest, UnitAxis

SideBranch = tuple[int, int]
"""A side of the rule (the leaf's is the last) and a branch of its choices."""


class ShapeConflict(Exception):  # noqa: N818 - internal: becomes an entry of a plan's report, never reaches a user
    """Shapes do not fit a rule's axes: where and why, and what to do where that is known."""

    def __init__(self, problem: str, advice: str = "") -> None:
        super().__init__(f"{problem}: {advice[0].lower()}{advice[1:]}" if advice else problem)
        self.problem = problem
        self.advice = advice or "Correct the axes of the rule, or their extents"


@dataclass(slots=True)
class RuleAxes:
    """The axes of a rule, side by side, with what shapes cannot say.

    `sides` are the key sides' axes and, last, the leaf's. Branches number the combinations of the choices that an axis
    holds; `pairing` has only those.
    """

    sides: tuple[Axes, ...]
    pairing: Pairing
    sizes: Mapping[str, int]

    @classmethod
    def of(cls, rule: Rule, depth: int = 0) -> RuleAxes:
        """The axes of a rule whose leaf has `depth` stacked axes in front that the rule does not mention."""
        leaf = () if rule.leaf is None else prepended(rule.leaf.axes or (), stack_names(depth))
        sides = (*(side.axes or () for side in rule.keys), leaf)
        return cls(sides, tuple(pair for pair in rule.pairing if pair.shaped), _selected(rule))

    @property
    def branches(self) -> int:
        """How many combinations of choices there are."""
        return branch_count(self.pairing)

    def picks(self, branch: int) -> tuple[int, ...]:
        """For each pair, which of its parts this branch takes."""
        return branch_picks(self.pairing, branch)

    def pair_of(self, side: int, factor: JoinedParts | PartExtent) -> int:
        """The pair that an axis of parts belongs to, or that `_` on `side` speaks of."""
        for number, pair in enumerate(self.pairing):
            if (pair.parts[side] is factor) if isinstance(factor, JoinedParts) else pair.parts[side] is None:
                return number
        raise AssertionError("checked when the rule was made")


@dataclass(slots=True)
class Extents:
    """Known extents by symbol, and how a factor of an axis is spelled as symbols."""

    rule_axes: RuleAxes
    known: dict[str, int] = field(default_factory=dict[str, int])

    def __post_init__(self) -> None:
        """Enter what the options and the form of the rule say."""
        rule_axes = self.rule_axes
        labels = [label for pair in rule_axes.pairing for parts in pair.parts if parts for label in parts.labels]
        for name, size in rule_axes.sizes.items():
            if name not in labels:
                self.known[name] = size
        for number, pair in enumerate(rule_axes.pairing):
            spoken = {
                rule_axes.pair_of(s, f)
                for s, axes in enumerate(rule_axes.sides)
                for f in factors(axes)
                if isinstance(f, PartExtent)
            }
            wide = number in spoken or None not in pair.parts
            for branch in range(pair.branches):
                if not wide:
                    self.known[f"|{number}:{branch}"] = 1
                for side, parts in enumerate(pair.parts):
                    size = rule_axes.sizes.get(pair.labels[side][branch]) if parts else None
                    if size is not None:
                        self.known[f"|{number}:{branch}"] = size
        for side, axes in enumerate(rule_axes.sides):
            for factor in factors(axes):
                if isinstance(factor, Index) and factor.selection is not None and factor.name in self.known:
                    # With a selection the option counts what there is before selecting.
                    self.known[f"{factor.name}@{side}"] = self.known[factor.name]
        for axes in rule_axes.sides:
            for factor in factors(axes):
                if isinstance(factor, Index) and factor.selection is not None:
                    self.known.pop(factor.name, None)

    def symbols(self, factor: Factor, place: SideBranch) -> tuple[str, ...] | None:
        """The symbols whose sum is the extent of `factor`; `None` where it is 1."""
        side, branch = place
        if isinstance(factor, UnitAxis):
            return None
        if isinstance(factor, Index):
            return (factor.name if factor.selection is None else f"{factor.name}@{side}",)
        number = self.rule_axes.pair_of(side, factor)
        if isinstance(factor, PartExtent):
            return (f"|{number}:{self.rule_axes.picks(branch)[number]}",)
        return tuple(f"|{number}:{other}" for other in range(self.rule_axes.pairing[number].branches))

    def extent(self, factor: Factor, place: SideBranch) -> int | None:
        """The extent of `factor`, as far as it is known."""
        symbols = self.symbols(factor, place)
        if symbols is None:
            return 1
        if any(symbol not in self.known for symbol in symbols):
            return None
        return sum(self.known[symbol] for symbol in symbols)

    def learn(self, symbol: str, value: int) -> bool:
        """Enter a new extent."""
        if value < 0:
            raise ShapeConflict("the parts are wider than their axis")
        self.known[symbol] = value
        return True

    def selections(self) -> bool:
        """Extents of selected axes from those before selecting; whether that taught something."""
        learned = False
        for side, axes in enumerate(self.rule_axes.sides):
            for factor in factors(axes):
                if not isinstance(factor, Index) or factor.selection is None:
                    continue
                whole = self.known.get(f"{factor.name}@{side}")
                if whole is None:
                    continue
                count = len(factor.selection.positions(whole))
                learned |= factor.name not in self.known
                if self.known.setdefault(factor.name, count) != count:
                    raise ShapeConflict(f"'{factor}' selects {count} of {whole}, not {self.known[factor.name]}")
        return learned

    def equation(self, axis: Axis, place: SideBranch, extent: int) -> bool:
        """Use one axis whose extent is known; whether that taught something."""
        product, unknown = 1, list[tuple[str, ...]]()
        for factor in axis.factors:
            value = self.extent(factor, place)
            if value is None:
                unknown.append(self.symbols(factor, place) or ())
            else:
                product *= value
        if not unknown:
            if product != extent:
                raise ShapeConflict(f"axis '{axis}' is {extent} wide where the rest of the rule makes it {product}")
            return False
        missing = [s for s in unknown[0] if s not in self.known]
        if len(unknown) > 1 or len(missing) > 1 or product == 0:
            return False
        if extent % product:
            raise ShapeConflict(f"axis '{axis}' is {extent} wide, which {product} does not divide")
        return self.learn(missing[0], extent // product - sum(self.known.get(s, 0) for s in unknown[0]))

    def shape(self, place: SideBranch, rest: Shape | None) -> Shape | None:
        """The shape that an array has at `place`, as far as it is known."""
        shape: list[int] = []
        for axis in self.rule_axes.sides[place[0]]:
            if isinstance(axis, Rest):
                if rest is None:
                    return None
                shape += rest
                continue
            product = 1
            for factor in axis.factors:
                value = self.extent(factor, place)
                if value is None:
                    return None
                product *= value
            shape.append(product)
        return tuple(shape)

    def unsolved(self) -> list[str]:
        """Names that options should give, as a user would write them."""
        names: dict[str, None] = {}
        for side, axes in enumerate(self.rule_axes.sides):
            for factor in factors(axes):
                for branch in range(self.rule_axes.branches):
                    if self.extent(factor, (side, branch)) is None:
                        labels = factor.labels if isinstance(factor, JoinedParts) else ()
                        names |= dict.fromkeys((factor.name,) if isinstance(factor, Index) else labels)
        return list(names)


def _selected(rule: Rule) -> dict[str, int]:
    """The sizes of a rule. Of an index that a key's name selects from an axis has only those that are selected."""
    sizes = dict(rule.sizes)
    sides = rule.keys if rule.leaf is None else (*rule.keys, rule.leaf)
    cut = {f.name for side in sides for f in side.factors() if isinstance(f, Index) and f.selection is not None}
    for index in rule.keys[0].name.indices():
        if index.selection is not None and index.name in sizes and index.name not in cut:
            sizes[index.name] = len(index.selection.positions(sizes[index.name]))
    return sizes


def factors(axes: Axes) -> Iterator[Factor]:
    """Every factor of every axis."""
    for axis in axes:
        if isinstance(axis, Axis):
            yield from axis.factors


def split_rest(axes: Axes, shape: Shape, whose: str) -> tuple[list[tuple[Axis, int]], Shape | None]:
    """The axes with their extents, and what `...` stands for (`None` without one)."""
    named = [axis for axis in axes if isinstance(axis, Axis)]
    with_rest = len(named) < len(axes)
    if len(shape) < len(named) or (not with_rest and len(shape) > len(named)):
        plus = " or more" if with_rest else ""
        raise ShapeConflict(f"the rule gives {whose} {plural(len(named), 'axis')}{plus}, but its shape is {shape}")
    if not with_rest:
        return list(zip(named, shape, strict=True)), None
    before = next(n for n, axis in enumerate(axes) if isinstance(axis, Rest))
    after = len(shape) - (len(named) - before)
    outer = (*shape[:before], *shape[after:])
    return list(zip(named, outer, strict=True)), shape[before:after]


def solve(rule_axes: RuleAxes, shapes: Mapping[SideBranch, Shape]) -> tuple[Extents, dict[int, Shape]]:
    """All extents, from the shapes that are known. Also what `...` stands for, by branch.

    **Raises:** `ShapeConflict`.
    """
    extents = Extents(rule_axes)
    rests: dict[int, Shape] = {}
    equations: list[tuple[Axis, SideBranch, int]] = []
    for place, shape in shapes.items():
        whose = "the leaf" if place[0] == len(rule_axes.sides) - 1 else "the tensor"
        pairs, rest = split_rest(rule_axes.sides[place[0]], shape, whose)
        equations += [(axis, place, extent) for axis, extent in pairs]
        if rest is not None and rests.setdefault(place[1], rest) != rest:
            raise ShapeConflict(f"'...' is {rest} on one side and {rests[place[1]]} on the other")
    learned = True
    while learned:
        learned = any([extents.equation(*equation) for equation in equations]) or extents.selections()
    return extents, rests


def expected(
    rule_axes: RuleAxes, shapes: Mapping[SideBranch, Shape], place: SideBranch, same: Collection[SideBranch]
) -> Shape | None:
    """The shape that the tensor at `place` must have by the other shapes; `None` where they do not tell.

    `same` are the places of that tensor: a split has it in each of its branches.
    """
    others = {other: shape for other, shape in shapes.items() if other not in same}
    try:
        extents, rests = solve(rule_axes, others)
    except ShapeConflict:
        return None
    return extents.shape(place, rests.get(place[1]))


def prepended(axes: Axes, names: Sequence[str]) -> Axes:
    """`axes` with one axis for each of `names` in front."""
    return (*(Axis((Index(name),)) for name in names), *axes)
