"""Which unused keys the missing leaves may have meant, and the rules that would say so.

One assignment over all leaves and keys: a key is proposed to one leaf at most. A rule is offered only where leaf and
key are each other's only sensible counterpart, and after a plan with it has shown that it does what it says.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from bridge._text import fold, plural, template
from bridge.planning.changes import NameChange, changes
from bridge.planning.likeness import Numbered, settle
from bridge.planning.pairs import AlikeNames, Open, SurePair, pairs
from bridge.planning.suggest import NameGroup, grouped, listed, pasted, renaming
from bridge.planning.trial import TrialRules, proven

if TYPE_CHECKING:
    from bridge.mapping.arrays import ArraySpec
    from bridge.mapping.indexmap import Shape
    from bridge.mapping.problem import Missing
    from bridge.planning.plan import Plan
    from bridge.rules.rule import Rule

_MOST = 300_000  # keys and leaves; of more, nothing is proposed
_FAMILIES = 10_000  # of them, names that differ in more than indices


class Hint(NamedTuple):
    """What is said below the first leaf that it is about.

    `candidates` are unused keys, folded, and `shape` theirs where it is another than the leaf's. `rules` fill `leaves`
    leaves; `first` says that they have to stand before those that there are. `rivals` are other leaves that the keys
    may be for.
    """

    candidates: tuple[str, ...]
    several: bool
    shape: Shape | None = None
    rules: tuple[str, ...] = ()
    first: bool = False
    leaves: int = 1
    rivals: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """The unused keys that may have been meant, and the rules that would say so."""
        if not self.candidates:  # it is told of elsewhere
            return []
        shape = f"same shape{'s' * self.several}" if self.shape is None else f"{self.shape}"
        lines = [f"did you mean {listed(self.candidates)} (unused, {shape})?"]
        if self.rivals:
            it = "they" if self.several else "it"
            lines.append(f"{it} may as well be for {listed(self.rivals)}: say by rules which is whose")
        if self.rules:
            rules = ", ".join(map(pasted, self.rules))
            what = "the rule is" if len(self.rules) == 1 else "the rules are"
            if self.leaves > 1 and len(self.rules) == 1:
                what = f"one rule says it for {plural(self.leaves, 'leaf')}:"
            lines.append(f"if so, {what} {rules}{', before all others' * self.first}")
        return lines


_ELSEWHERE = Hint((), several=False)
"""Of leaves that the hint of another speaks of."""


class Hints:
    """The hints of one plan's report, found when the first is asked for."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def of(self, members: Sequence[Missing]) -> Hint | None:
        """The hint for leaves that are reported together."""
        return self.found.get((template(members[0].name)[0], bool(members[0].place)))

    @cached_property
    def found(self) -> Mapping[tuple[str, bool], Hint]:
        """Hints by the name of the leaf without its indices, and whether only places of it are missing."""
        plan = self.plan
        if plan.template is None or not plan.problems.missing or not plan.problems.unexpected:
            return {}
        if len(plan.specs) + len(plan.template.leaves) > _MOST:
            return {}
        search = _Search(plan)
        return search.hints() if len(search.unused) + len(search.missing) <= _FAMILIES else {}


class _Search:
    """What is missing and what is unused, and what they have to do with each other."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        assert plan.template is not None
        self.template = plan.template
        self.ports = plan.template.keys()
        self.turning = False
        problems = plan.problems
        told = frozenset[str]() if problems.nature is None else problems.nature.keys
        self.unused = {
            g.text: g for g in grouped(p.key for p in problems.unexpected if not p.axes and p.key not in told)
        }
        self.sent = {p.key for p in problems.unexpected if p.reason}
        self.missing = {g.text: g for g in grouped(dict.fromkeys(p.name for p in problems.missing if not p.place))}

    @cached_property
    def keys(self) -> Numbered:
        """The numbers in the names of all keys."""
        return Numbered(dict.fromkeys(template(key)[0] for key in self.plan.specs))

    @cached_property
    def leaves(self) -> Numbered:
        """The numbers in the names of all leaves."""
        return Numbered(dict.fromkeys(template(leaf)[0] for leaf in self.template.leaves))

    def hints(self) -> dict[tuple[str, bool], Hint]:
        """Changes that explain many first, then pairs, then what is open."""
        settle(self.keys, self.leaves)
        found: dict[tuple[str, bool], Hint] = {}
        explained: set[str] = set()
        for hint, change in self.changes():
            texts = [text for text in self.missing if self.port(text) in change.explains]
            found |= dict.fromkeys(((text, False) for text in texts), _ELSEWHERE)
            found[texts[0], False] = hint
            explained |= {*texts, *change.explains.values()}
        leaves = [unit for text, group in self.missing.items() if text not in explained for unit in self.leaf(group)]
        leaves += self.places()
        keys = [unit for text, group in self.unused.items() if text not in explained for unit in self.key(group)]
        sure, open_ = pairs(leaves, keys)
        self.turning = any(pair.fit.how == "transposed" for pair in sure)
        sound = self.proven(sure)
        for pair, rules in zip(sure, sound, strict=True):
            found[pair.leaf.text, False] = self.hint(pair, rules)
        for each in open_:
            found |= dict.fromkeys(((leaf.text, bool(leaf.places)) for leaf in each.leaves), _ELSEWHERE)
            found[each.leaves[0].text, bool(each.leaves[0].places)] = _open_hint(each)
        return found

    # One change for many

    def port(self, text: str) -> str:
        """What a leaf is called where a key would come in."""
        name = next(iter(self.missing[text].names.values()))
        return template(self.ports.get(name, name))[0]

    def changes(self) -> Iterator[tuple[Hint, NameChange]]:
        """Changes of names that a plan has proven."""
        found = changes(map(self.port, self.missing), self.unused, self.keys)
        proposals: list[TrialRules] = []
        for change in found:
            leaves = [n for t, g in self.missing.items() if self.port(t) in change.explains for n in g.names.values()]
            keys = [n for text in change.explains.values() for n in self.unused[text].names.values()]
            proposals.append(
                TrialRules(change.rules, frozenset(leaves), frozenset(keys), not self.sent.isdisjoint(keys))
            )
        for change, proposal, good in zip(found, proposals, proven(self.plan, proposals), strict=True):
            shapes = [self.plan.specs[key].shape for key in proposal.keys]
            if good and not (self.turned and any(map(is_square, shapes))):
                text = next(t for t in self.missing if self.port(t) in change.explains)
                group = self.unused[change.explains[self.port(text)]]
                shown, count = tuple(group.shown), len(proposal.leaves)
                yield Hint(shown, len(group.names) > 1, None, change.rules, proposal.first, count), change

    # Pairs

    def leaf(self, group: NameGroup) -> Iterator[AlikeNames]:
        """A family of missing leaves of one shape."""
        yield from _unit(group, self.template.leaves, self.leaves)

    def key(self, group: NameGroup) -> Iterator[AlikeNames]:
        """A family of unused keys of one shape."""
        yield from _unit(group, self.plan.specs, self.keys)

    def places(self) -> Iterator[AlikeNames]:
        """Stacked leaves of which some places are missing, called as the keys would be."""
        found: dict[str, list[Missing]] = {}
        for problem in self.plan.problems.missing:
            if problem.place:
                found.setdefault(problem.name, []).append(problem)
        for name, members in found.items():
            places, key = [_numbers(problem.place) for problem in members], members[0].key
            spec = self.plan.leaves.get(name)
            if spec is not None and key is not None and None not in places:
                text = template(name)[0]
                called = template(key)[0]
                numbers = tuple(p for p in places if p is not None)
                yield AlikeNames(text, {(): name}, spec.shape, self.keys.likeness(called), numbers, called)

    def proven(self, sure: Sequence[SurePair]) -> list[tuple[str, ...]]:
        """The rules of each pair: without axes where its layer's layout or its shape allows it, else with them."""
        rules: list[tuple[str, ...]] = [()] * len(sure)
        for axes in (False, True):
            tried = [n for n, p in enumerate(sure) if not rules[n] and _can(p, axes) and not self.turnable(p)]
            proposals = [self.proposal(sure[n], axes) for n in tried]
            for n, proposal, good in zip(tried, proposals, proven(self.plan, proposals), strict=True):
                rules[n] = proposal.rules if good else ()
        return rules

    @cached_property
    def turned(self) -> bool:
        """Whether anything is stored transposed: what is square may be, too."""
        rules = any(is_turning(rule) for rule in self.plan.request.rules)
        return rules or any(p.expected == p.got[::-1] != p.got for p in self.plan.problems.mismatched)

    def turnable(self, pair: SurePair) -> bool:
        """Whether shapes do not tell the order of the axes, and names are no sign that it is the same."""
        shape = pair.key.shape
        if len(shape) < 2 or len(set(shape)) == len(shape):
            return False
        ends = {unit.text.rpartition(".")[2].lower() for unit in (pair.leaf, pair.key)}
        return len(ends) > 1 or self.turned or (is_square(shape) and self.turning)

    def proposal(self, pair: SurePair, axes: bool) -> TrialRules:
        """The rules of one pair, and what they should do."""
        keys = frozenset(pair.key.names.values())
        port = pair.leaf.text if axes else self.port(pair.leaf.text)
        rules = _rules(pair, port, axes)
        return TrialRules(rules, frozenset(pair.leaf.names.values()), keys, not self.sent.isdisjoint(keys))

    def hint(self, pair: SurePair, rules: tuple[str, ...]) -> Hint:
        """What is said of a pair."""
        shape = None if pair.fit.how == "same" else pair.key.shape
        keys = pair.key.names.values()
        return Hint(_shown(keys), len(keys) > 1, shape, rules, not self.sent.isdisjoint(keys))


def _unit(group: NameGroup, specs: Mapping[str, ArraySpec], numbered: Numbered) -> Iterator[AlikeNames]:
    shapes = {specs[name].shape for name in group.names.values()}
    if len(shapes) == 1:
        yield AlikeNames(group.text, group.names, shapes.pop(), numbered.likeness(group.text))


def _shown(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(name for name, _ in fold(names))


def _open_hint(found: Open) -> Hint:
    keys = [name for unit in found.keys for name in unit.names.values()]
    rivals = [name for unit in found.leaves[1:] for name in _shown(unit.names.values())]
    leaf, key = found.leaves[0], found.keys[0]
    shape = None if leaf.shape[len(leaf.shape) - len(key.shape) :] == key.shape else key.shape
    return Hint(_shown(keys), len(keys) > 1, shape, rivals=tuple(rivals))


def is_square(shape: Shape) -> bool:
    """Whether a transposition leaves a shape as it is."""
    return len(shape) >= 2 and len(set(shape)) < len(shape)


def is_turning(rule: Rule) -> bool:
    """Whether a rule brings axes into another order."""
    if rule.leaf is None or rule.leaf.axes is None or rule.keys[0].axes is None:
        return False
    own = [str(factor) for factor in rule.keys[0].factors()]
    to = [str(factor) for factor in rule.leaf.factors() if str(factor) in own]
    return to != [name for name in own if name in to]


def _can(pair: SurePair, axes: bool) -> bool:
    """Whether a rule with, or without, axes may be what the pair needs."""
    return pair.fit.how != ("same" if axes else "rows")


def _rules(pair: SurePair, leaf: str, axes: bool) -> tuple[str, ...]:
    if not axes:
        return (renaming(pair.key.text, leaf),)
    names = "abcdefgh"[: len(pair.key.shape)]
    own = [*names]
    rest = ""
    if pair.fit.how == "transposed":
        to = own[::-1]
    elif pair.fit.how == "rows":
        rows = pair.leaf.shape[pair.fit.depth]
        own[0], to = f"a[:{rows}]", [*names]
        rest = f"{renaming(pair.key.text)} [a[{rows}:] {' '.join(names[1:])}] -> _"
    else:
        own = [name if n != 1 else "1" for name, n in zip(names, pair.key.shape, strict=True)]
        left = iter([name for name in own if name != "1"])
        to = [next(left) if n != 1 else "1" for n in pair.leaf.shape[pair.fit.depth :]]
    rule = renaming(pair.key.text, leaf, own, to, pair.fit.depth)
    return (rule, rest) if rest else (rule,)


def _numbers(place: str) -> tuple[int, ...] | None:
    """The numbers of `[0, 3]`; `None` for a place that is no single one."""
    parts = place[1:-1].split(", ")
    return tuple(map(int, parts)) if all(part.isdecimal() for part in parts) else None
