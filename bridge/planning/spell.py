"""The names of a model spelled as keys: each rule matched from its leaf side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, product

from bridge._errors import PlanError
from bridge._text import quote
from bridge.mapping.indexmap import Shape
from bridge.mapping.pattern import Codec, Pattern
from bridge.mapping.send import Sender
from bridge.mapping.solve import Layout, ShapeConflict, factors, solve
from bridge.mapping.template import Port, Spec, Template, branch_names
from bridge.planning.rivals import Rivals
from bridge.planning.way import Way, check_counted, counted, part, whole
from bridge.rules.check import picked_labels, shaped_branch
from bridge.rules.rule import Rule
from bridge.rules.syntax import Choice, Hole, Index, Name, Wild

_OPEN = 1 << 40  # how many indices an open selection may have: more than any model


class Speller:
    """Names that are still to be saved, and the keys found so far: `shapes` has them."""

    def __init__(self, model: Template, rivals: Rivals | None) -> None:
        self.model, self.rivals = model, rivals
        # What a layout drops has no values to save.
        self.ports = {
            name: kept
            for name, ports in model.ports().items()
            if (kept := [p for p in ports if model.placed[p.placed].rules[p.rule].leaf is not None])
        }
        self.visible = list(dict.fromkeys([*self.ports, *model.leaves, *model.aliases]))
        self.claimed: dict[tuple[str, Shape], int] = {}
        self.parted: dict[tuple[str, Shape], int] = {}
        self.regions: dict[tuple[str, str, str | None], tuple[int, int]] = {}
        self.saved: dict[str, str] = {}
        self.shapes: dict[str, Shape] = {}
        self.stacked: dict[str, Rule] = {}
        self.depths: dict[str, set[int]] = {}
        self.layers: dict[str, str] = {}
        for ports in self.ports.values():
            for port in ports:
                placed, leaf = model.placed[port.placed], self.leaf_name(port)
                self.depths.setdefault(leaf, set()).add(placed.depth)
                self.layers[leaf] = placed.prefix

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
                for way in self.ways(sender, kept, axes):
                    if way.name in found:
                        raise PlanError(
                            f"leaf {quote(way.name)} can be saved in two ways by the rule '{rule}': write rules that "
                            "say which of its indices are axes of the leaf"
                        )
                    if way.name not in taken:
                        found[way.name] = way
            # An index that stands in the leaf's name is no axis: fewer axes go first.
            taken |= found
        for visible in self.visible:
            if visible in taken:
                free = self.free(visible, explicit=rule.leaf.axes is not None)
                if free or not rule.tie:
                    self.keys(sender, taken[visible], free=free)

    def ways(self, sender: Sender, kept: Name, axes: tuple[Hole, ...]) -> list[Way]:
        """The names that one reading of the leaf side matches: `axes` are the holes that are leading axes there."""
        explicit = sender.rule.leaf is not None and sender.rule.leaf.axes is not None
        depth = len(axes) + len(sender.stacked)
        pattern = Pattern(kept)
        found: list[Way] = []
        for name in self.visible:
            texts = pattern.match(name)
            if texts is None:
                continue
            ports = [] if explicit else self.ports.get(name, [])
            leaf_name = self.model.aliases.get(name, name)
            if ports:
                leaf_name = self.leaf_name(ports[0])
                ports = [port for port in ports if self.model.placed[port.placed].depth == depth]
            if not ports and not explicit and leaf_name in self.depths:
                if max(self.depths[leaf_name]) > depth:
                    self.stacked.setdefault(leaf_name, sender.rule)
                if depth not in self.depths[leaf_name] or name in self.ports:
                    continue
            filled = self.leaf_name(ports[0]) if ports else leaf_name
            leaf = self.model.leaves.get(filled)
            if leaf is None or len(leaf.shape) < depth:
                continue
            found.append(Way(name, kept, pattern, axes, texts, filled, leaf))
        return [way for way in found if whole(way, found, counted(sender))]

    def free(self, name: str, *, explicit: bool) -> bool:
        """Whether what a name's ports fill is not saved under other names yet: a layer may have several spellings."""
        claims: dict[tuple[str, str, str | None], tuple[int, int]] = {}
        for port in () if explicit else self.ports.get(name, ()):
            placed = self.model.placed[port.placed]
            rule = placed.rules[port.rule]
            assert rule.leaf is not None
            claims[self.leaf_name(port), part(rule.leaf.axes), placed.tied_at] = (port.placed, port.rule)
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

    def keys(self, sender: Sender, way: Way, *, free: bool) -> None:
        """The keys that one name is saved as; where it is not `free`, those that another rule could mean as well."""
        rule, axes, leaf = sender.rule, way.axes, way.leaf
        counts = dict.fromkeys((i.name for s in (*rule.keys, rule.leaf) if s for i in s.name.indices()), _OPEN)
        counts |= dict(rule.sizes)
        values: dict[str, int] = {}
        wilds: dict[bool, list[str]] = {False: [], True: []}
        labels: list[str] = []
        for variable, text in zip(way.pattern.variables, way.texts, strict=True):
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
            more = self.leading(sender, axes, counts, stack)
            if more is None:
                continue
            found = self.spelled(sender, way, values | more, wilds, labels, counts)
            # A tie takes nothing away: its key is written beside the other.
            if free and (rule.tie or self.claim(way.name, stack, sender.number)):
                new = dict(found)
                self.shapes |= new
                if self.rivals is not None and not rule.tie:
                    self.rivals.first(sender, way, stack, new)
            elif self.rivals is not None and not rule.tie:
                new = ((key, shape) for key, shape in found if key not in self.shapes)
                self.rivals.check(sender, way, stack if free else None, new)

    def spelled(
        self,
        sender: Sender,
        way: Way,
        values: dict[str, int],
        wilds: Mapping[bool, Sequence[str]],
        labels: Sequence[str],
        counts: Mapping[str, int],
    ) -> Iterator[tuple[str, Shape]]:
        """The keys, with their shapes, of one place of a leaf's stack."""
        depth = len(way.axes) + len(sender.stacked)
        for picks in self.picks(sender.rule, labels):
            for bound in self.bound(sender, way.leaf, depth, shaped_branch(sender.rule.pairing, picks)):
                key = self.key(sender, way, values | bound, wilds, picks, counts)
                if key is not None:
                    yield key, self.unstacked(sender, values | bound, way.leaf)

    def claim(self, name: str, stack: Shape, rule: int) -> bool:
        """Whether one place of a leaf's stack, with all below it, is this rule's: the first that names it has it."""
        above = [(name, stack[:depth]) for depth in range(len(stack))]
        if (
            any(self.claimed.get(place, rule) != rule for place in above)
            or self.parted.get((name, stack), rule) != rule
        ):
            return False
        for place in above:
            self.parted.setdefault(place, rule)
        return self.claimed.setdefault((name, stack), rule) == rule

    def leading(
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

    def bound(self, sender: Sender, leaf: Spec, depth: int, branch: int) -> Iterator[dict[str, int]]:
        """Positions of the indices that are axes of the leaf, of one branch, and numbers in the key's name."""
        rule = sender.rule
        assert rule.leaf is not None
        named = {i.name for i in rule.keys[sender.side].name.indices()}
        names = [f.name for f in factors(rule.leaf.axes or ()) if isinstance(f, Index) and f.name in named]
        if not names:
            yield {}
            return
        try:
            known = solve(Layout.of(rule, depth), {(len(rule.keys), branch): leaf.shape})[0].known
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

    def key(
        self,
        sender: Sender,
        way: Way,
        values: Mapping[str, int],
        wilds: Mapping[bool, Sequence[str]],
        picks: Sequence[int],
        counts: Mapping[str, int],
    ) -> str | None:
        """Spell one key; `None` where a selection leaves it out."""
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
                    check_counted(piece, sender.rule, way)
                    # An index that the leaf does not have is the one that its selection picks.
                    number = Codec.of(piece, counts).encode([values.get(index.name, 0) for index in piece.indices])
                    if number is None:
                        return None
                    text += str(number)
            deep = len(segment) == 1 and isinstance(segment[0], Wild) and segment[0].deep
            text += "" if deep else "."
        return text.removesuffix(".")

    def unstacked(self, sender: Sender, values: Mapping[str, int], leaf: Spec) -> Shape:
        """The key's shape where its indices need one: as long an axis as it has leaves."""
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
