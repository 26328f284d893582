"""Rules read from the leaf side: which keys, of which shapes, a model is saved as.

The keys found here go through the same proof as the keys of a checkpoint. So what is written is what the rules would read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, product
from typing import NamedTuple

from bridge._errors import PlanError
from bridge._text import quote
from bridge.mapping.indexmap import Shape
from bridge.mapping.land import Names, land
from bridge.mapping.pattern import Codec, Pattern
from bridge.mapping.problem import Problems
from bridge.mapping.relate import Relation, Relations, stack_names
from bridge.mapping.send import Sender, send
from bridge.mapping.solve import Layout, ShapeConflict, factors, prepended, solve
from bridge.mapping.template import Port, Spec, Template, branch_names
from bridge.rules.check import picked_labels
from bridge.rules.rule import Rule
from bridge.rules.syntax import Axes, Choice, Hole, Index, Name, Wild

_OPEN = 1 << 40  # how many indices an open selection may have: more than any model


def saved_specs(rules: Sequence[Rule], model: Template) -> dict[str, Spec]:
    """dtype and shape of every key that `rules` name for the leaves of `model`; dtypes are the leaves' own.

    **Raises:** `PlanError` where the leaves do not tell a key's shape.
    """
    found = _Reverse(model)
    for number, rule in enumerate(rules):
        if rule.leaf is not None and not rule.copy:
            for side in range(len(rule.keys)):
                found.rule(rule, number, side)
    shapes: dict[str, Shape] = found.shapes
    sents, _ = send(rules, shapes)
    names = Names(model)
    relations = Relations(names)
    for sent in sents:
        if sent.target is not None:
            for landed in land(sent, names, shapes).landed:
                relations.add(landed)
    specs: dict[str, Spec] = dict.fromkeys(shapes, Spec(next(iter(model.leaves.values())).dtype, ())) if shapes else {}
    for relation in relations.found.values():
        for key, spec in _specs(relation, model, shapes):
            specs[key] = spec
    return specs


def _specs(relation: Relation, model: Template, shapes: Mapping[str, Shape]) -> Iterator[tuple[str, Spec]]:
    """The keys of a relation with the shapes that its leaves give them, unless `shapes` knows better."""
    leaves = {branch: model.leaves[name] for branch, name in relation.leaves.items()}
    extents, rests = None, dict[int, Shape]()
    if relation.layout is not None:
        side = len(relation.layout.sides) - 1
        try:
            extents, rests = solve(relation.layout, {(side, branch): leaf.shape for branch, leaf in leaves.items()})
        except ShapeConflict as conflict:
            raise PlanError(
                f"leaf {quote(relation.leaves[0])} cannot be saved by the rule '{relation.rule}': {conflict}"
            ) from None
    for slot, arrived in relation.slots.items():
        leaf = leaves[slot.branch]
        shape = leaf.shape[relation.depth :]
        first = arrived[0].keys[0]
        if extents is not None:
            solved = shapes[first] or extents.shape((slot.side, slot.branch), rests.get(slot.branch))
            if solved is None:
                missing = ", ".join(f"{name}=…" for name in extents.unsolved())
                raise PlanError(
                    f"key {quote(first)} has a shape that the model does not tell: add '; {missing}' to the rule "
                    f"'{relation.rule}'"
                )
            shape = solved
        for landed in arrived:
            for key in landed.keys:
                yield key, Spec(leaf.dtype, shape)


class Way(NamedTuple):
    """How a name of the model matches a rule's leaf side, whose holes `axes` are leading axes of the leaf."""

    name: str
    pattern: Pattern
    axes: tuple[Hole, ...]
    texts: tuple[str, ...]
    leaf: Spec


def _counted(sender: Sender) -> dict[str, int]:
    """How many positions each index of the key's name has, where its size is an option."""
    sizes = dict(sender.rule.sizes)
    indices = [index for index in sender.name.indices() if index.name in sizes]
    return {i.name: len(i.selection.positions(sizes[i.name])) if i.selection else sizes[i.name] for i in indices}


def _whole(way: Way, ways: Sequence[Way], counted: Mapping[str, int]) -> bool:
    """Whether every index that a rule counts is there as often as it says, as an axis or in names."""
    for axis, hole in enumerate(way.axes):
        count = counted.get(hole.indices[0].name) if len(hole.indices) == 1 else None
        if count is not None and way.leaf.shape[axis] != count:
            return False
    for place, variable in enumerate(way.pattern.variables):
        count = counted.get(variable.indices[0].name) if isinstance(variable, Hole) else None
        if count is not None:
            others = way.texts[:place] + way.texts[place + 1 :]
            if len({w.texts[place] for w in ways if w.texts[:place] + w.texts[place + 1 :] == others}) != count:
                return False
    return True


def _part(axes: Axes | None) -> str:
    """Which part of a leaf axes with selections speak of; rules that fill all of it are alternatives."""
    return " ".join(str(f) for f in factors(axes or ()) if isinstance(f, Index) and f.selection is not None)


class _Reverse:
    """Names that are still to be saved, and the keys found so far."""

    def __init__(self, model: Template) -> None:
        self.model = model
        # What a layout drops has no values to save.
        self.ports = {
            name: kept
            for name, ports in model.ports().items()
            if (kept := [p for p in ports if model.placed[p.placed].rules[p.rule].leaf is not None])
        }
        self.visible = list(dict.fromkeys([*self.ports, *model.leaves, *model.aliases]))
        self.claimed: dict[tuple[str, Shape], int] = {}
        self.regions: dict[tuple[str, str, str | None], tuple[int, int]] = {}
        self.saved: dict[str, str] = {}
        self.shapes: dict[str, Shape] = {}
        self.problems = Problems()

    def rule(self, rule: Rule, number: int, side: int) -> None:
        """Find the keys of one key side of a rule."""
        assert rule.leaf is not None
        sender = Sender(rule, number, side)
        name = rule.leaf.name
        holes = [n for n, s in enumerate(name.segments) if len(s) == 1 and isinstance(s[0], Hole)]
        taken: dict[str, Way] = {}
        for count in range(len(holes) + 1):
            found: dict[str, Way] = {}
            for out in combinations(holes, count):
                kept = Name(tuple(s for n, s in enumerate(name.segments) if n not in out) or ((),))
                axes = tuple(piece for n in out if isinstance(piece := name.segments[n][0], Hole))
                for way in self.ways(sender, Pattern(kept), axes):
                    if way.name in found:
                        raise PlanError(
                            f"leaf {quote(way.name)} can be saved in two ways by the rule '{rule}': write rules that say "
                            "which of its indices are axes of the leaf"
                        )
                    if way.name not in taken:
                        found[way.name] = way
            # An index that stands in the leaf's name is no axis: fewer axes go first.
            taken |= found
        for visible in self.visible:
            if visible in taken and self.free(visible, explicit=rule.leaf.axes is not None):
                self.keys(sender, taken[visible])

    def ways(self, sender: Sender, pattern: Pattern, axes: tuple[Hole, ...]) -> list[Way]:
        """The names that one reading of the leaf side matches: `axes` are the holes that are leading axes there."""
        explicit = sender.rule.leaf is not None and sender.rule.leaf.axes is not None
        depth = len(axes) + len(sender.stacked)
        found: list[Way] = []
        for name in self.visible:
            texts = pattern.match(name)
            if texts is None:
                continue
            ports = [] if explicit else self.ports.get(name, [])
            leaf = self.model.leaves.get(self.model.aliases.get(name, name))
            if ports:
                ports = [port for port in ports if self.model.placed[port.placed].depth == depth]
                if not ports:
                    continue
                leaf = self.model.leaves[self.leaf_name(ports[0])]
            if leaf is None or len(leaf.shape) < depth:
                continue
            found.append(Way(name, pattern, axes, texts, leaf))
        return [way for way in found if _whole(way, found, _counted(sender))]

    def free(self, name: str, *, explicit: bool) -> bool:
        """Whether what a name's ports fill is not saved under other names yet: a layer may have several spellings."""
        claims: dict[tuple[str, str, str | None], tuple[int, int]] = {}
        for port in () if explicit else self.ports.get(name, ()):
            placed = self.model.placed[port.placed]
            rule = placed.rules[port.rule]
            assert rule.leaf is not None
            claims[self.leaf_name(port), _part(rule.leaf.axes), placed.tied_at] = (port.placed, port.rule)
        if any(self.regions.get(region, owner) != owner for region, owner in claims.items()):
            return False
        self.regions |= claims
        if claims:
            self.saved |= {leaf: "" for leaf, _, _ in claims}
            return True
        leaf = self.model.aliases.get(name, name)
        if name in self.model.tied:
            return True
        return leaf not in self.model.fills and self.saved.setdefault(leaf, name) == name

    def leaf_name(self, port: Port) -> str:
        """The leaf that a port fills."""
        placed = self.model.placed[port.placed]
        leaf = placed.rules[port.rule].leaf
        assert leaf is not None
        return placed.leaf(branch_names(placed.rules[port.rule], -1, leaf.name)[port.branch])

    def keys(self, sender: Sender, way: Way) -> None:
        """The keys that one name is saved as."""
        name, pattern, axes, texts, leaf = way
        rule = sender.rule
        counts = dict.fromkeys((i.name for s in (*rule.keys, rule.leaf) if s for i in s.name.indices()), _OPEN)
        counts |= dict(rule.sizes)
        values: dict[str, int] = {}
        wilds: dict[bool, list[str]] = {False: [], True: []}
        labels: list[str] = []
        for variable, text in zip(pattern.variables, texts, strict=True):
            if isinstance(variable, Hole):
                positions = Codec.of(variable, counts).decode(int(text))
                if positions is None:
                    return
                values |= {i.name: p for i, p in zip(variable.indices, positions, strict=True)}
            elif isinstance(variable, Wild):
                wilds[variable.deep].append(text)
            else:
                labels.append(text)
        ranges = [range(n) for n in leaf.shape[: len(axes) + len(sender.stacked)]]
        for stack in product(*ranges):
            more = self.stacked(sender, axes, counts, stack)
            if more is None or self.claimed.setdefault((name, stack), sender.number) != sender.number and not rule.tie:
                continue
            for bound in self.bound(sender, leaf, len(ranges)):
                for picks in self.picks(rule, labels):
                    self.add(sender, values | more | bound, wilds, picks, counts, leaf)

    def stacked(
        self, sender: Sender, axes: Sequence[Hole], counts: Mapping[str, int], stack: Shape
    ) -> dict[str, int] | None:
        """The positions of the indices that are leading axes; `None` where a selection leaves one out."""
        values = dict(zip(sender.stacked, stack[len(axes) :], strict=True))
        for hole, number in zip(axes, stack, strict=False):
            positions = Codec.of(hole, counts).decode(number)
            if positions is None:
                return None
            values |= {i.name: p for i, p in zip(hole.indices, positions, strict=True)}
        return values

    def bound(self, sender: Sender, leaf: Spec, depth: int) -> Iterator[dict[str, int]]:
        """Positions of the indices that are axes of the leaf and numbers in the key's name."""
        rule = sender.rule
        assert rule.leaf is not None
        named = {i.name for i in rule.keys[sender.side].name.indices()}
        names = [f.name for f in factors(rule.leaf.axes or ()) if isinstance(f, Index) and f.name in named]
        if not names:
            yield {}
            return
        layout = Layout((prepended(rule.leaf.axes or (), stack_names(depth)),), (), dict(rule.sizes))
        try:
            known = solve(layout, {(0, 0): leaf.shape})[0].known
        except ShapeConflict:
            return
        for positions in product(*(range(known.get(name, 0)) for name in names)):
            yield dict(zip(names, positions, strict=True))

    def picks(self, rule: Rule, labels: Sequence[str]) -> Iterator[tuple[int, ...]]:
        """The branches that a name with these labels stands for: all of a choice that an axis of the leaf holds."""
        options: list[Sequence[int]] = []
        for pair in rule.pairing:
            place = pair.places[-1]
            options.append(range(pair.count) if place is None else [pair.labels[-1].index(labels[place])])
        yield from product(*options)

    def add(
        self,
        sender: Sender,
        values: dict[str, int],
        wilds: Mapping[bool, Sequence[str]],
        picks: Sequence[int],
        counts: Mapping[str, int],
        leaf: Spec,
    ) -> None:
        """Spell one key."""
        left = {deep: iter(texts) for deep, texts in wilds.items()}
        chosen = iter(picked_labels(sender.rule.pairing, sender.side, picks))
        text = ""
        for segment in sender.name.segments:
            for piece in segment:
                if isinstance(piece, str):
                    text += piece
                elif isinstance(piece, Wild):
                    text += next(left[piece.deep])
                elif isinstance(piece, Choice):
                    text += next(chosen)
                else:
                    # An index that the leaf does not have is the one that its selection picks.
                    number = Codec.of(piece, counts).encode([values.get(index.name, 0) for index in piece.indices])
                    if number is None:
                        return
                    text += str(number)
            deep = len(segment) == 1 and isinstance(segment[0], Wild) and segment[0].deep
            text += "" if deep else "."
        self.shapes[text.removesuffix(".")] = self.unstacked(sender, values, leaf)

    def unstacked(self, sender: Sender, values: Mapping[str, int], leaf: Spec) -> Shape:
        """The key's shape as far as its indices need it: one that an axis of the key holds is as long as it has leaves."""
        if not sender.unstacked:
            return ()
        side = sender.rule.keys[sender.side]
        sizes = {name: values[name] + 1 for name in sender.unstacked}
        layout = Layout(
            (side.axes or (), sender.rule.leaf.axes or () if sender.rule.leaf else ()),
            (),
            dict(sender.rule.sizes) | sizes,
        )
        extents, rests = solve(layout, {(1, 0): leaf.shape})
        return extents.shape((0, 0), rests.get(0)) or ()
