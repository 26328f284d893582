"""Which unused keys the missing leaves may have meant, and the rules that would say so.

The proposals are those of `bridge.suggest`. A rule is offered only where a proposal is certain, and after a plan with
it has shown that it does what it says.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from bridge._text import fold, plural, template
from bridge.planning.suggest import listed, pasted
from bridge.planning.trial import TrialRules, proven
from bridge.proposing import Pair, propose
from bridge.proposing.compress import swept

if TYPE_CHECKING:
    from bridge.mapping.indexmap import Shape
    from bridge.mapping.problem import Missing
    from bridge.planning.plan import Plan
    from bridge.rules.rule import Rule

_MOST = 300_000  # keys and leaves; of more, nothing is proposed
_FAMILIES = 4_000  # of them, names that differ in more than indices
_CLOSE = 0.8  # how alike a misspelt name is


class Hint(NamedTuple):
    """What is said below the first leaf that it is about.

    `candidates` are unused keys, folded, and `shape` theirs where it is another than the leaf's. `rules` fill `leaves`
    leaves; `first` says that they have to stand before those that there are.
    """

    candidates: tuple[str, ...]
    several: bool
    shape: Shape | None = None
    rules: tuple[str, ...] = ()
    first: bool = False
    leaves: int = 1

    def lines(self) -> list[str]:
        """The unused keys that may have been meant, and the rules that would say so."""
        if not self.candidates:  # it is told of elsewhere
            return []
        shape = f"same shape{'s' * self.several}" if self.shape is None else f"{self.shape}"
        lines = [f"did you mean {listed(self.candidates)} (unused, {shape})?"]
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
        return search.hints() if search.families <= _FAMILIES else {}


class _Search:
    """What is missing and what is unused, and what they have to do with each other."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        assert plan.template is not None
        self.template = plan.template
        problems = plan.problems
        told = frozenset[str]() if problems.nature is None else problems.nature.keys
        self.unused = {p.key: plan.specs[p.key] for p in problems.unexpected if not p.axes and p.key not in told}
        self.sent = {p.key for p in problems.unexpected if p.reason}
        self.missing = {p.name: self.template.leaves[p.name] for p in problems.missing if not p.place}

    @property
    def families(self) -> int:
        """How many names there are that differ in more than indices."""
        return len({template(name)[0] for side in (self.unused, self.missing) for name in side})

    def hints(self) -> dict[tuple[str, bool], Hint]:
        """What is certain, then what is open, then places of stacks."""
        pairs = propose(self.unused, self.template._replace(leaves=self.missing)).pairs
        sure = [pair for pair in pairs if not pair.doubt or (pair.straight and not self.turnable(pair))]
        elsewhere = {pair.rule for pair in sure if self.sounds_like_another(pair)}
        sure = [pair for pair in sure if pair.rule not in elsewhere]
        found: dict[tuple[str, bool], Hint] = {}
        offered: set[str] = set()
        for rule, members in self.offers(sure):
            texts = dict.fromkeys(template(leaf)[0] for pair in members for leaf in pair.leaves)
            found |= dict.fromkeys(((text, False) for text in texts), _ELSEWHERE)
            found[next(iter(texts)), False] = self.hint(rule, members)
            offered.update(pair.rule for pair in members)
        for pair in pairs:
            if pair.rule not in offered and (pair.rule in elsewhere or pair.near or self.misspelt(pair)):
                texts = dict.fromkeys(template(leaf)[0] for leaf in pair.leaves)
                found |= dict.fromkeys(((text, False) for text in texts), _ELSEWHERE)
                found[next(iter(texts)), False] = self.open_hint(pair)
        taken = {key for pair in pairs for key in pair.keys}
        return found | self.places([key for key in self.unused if key not in taken])

    def offers(self, sure: Sequence[Pair]) -> Iterator[tuple[str, list[Pair]]]:
        """Rules that a plan has proven, few for many, and the pairs that each is for."""
        good = [pair for pair, yes in zip(sure, self.proven([(p.rule, [p]) for p in sure]), strict=True) if yes]
        by_rule = {pair.rule: pair for pair in good}
        kept = {key for pair in good for key in pair.keys}
        others = dict.fromkeys(template(key)[0] for key in self.plan.specs if key not in kept)
        many = [(rule, [by_rule[text] for text in texts]) for rule, texts in swept([*by_rule], others).items()]
        for (rule, members), yes in zip(many, self.proven(many), strict=True):
            if yes and len(members) > 1:
                yield rule, members
            else:
                yield from ((pair.rule, [pair]) for pair in members)

    def proven(self, offers: Sequence[tuple[str, Sequence[Pair]]]) -> list[bool]:
        """For rules and the pairs that they are for, whether they do what they should."""
        trials: list[TrialRules] = []
        for rule, members in offers:
            leaves = frozenset(leaf for pair in members for leaf in pair.leaves)
            keys = frozenset(key for pair in members for key in pair.keys)
            trials.append(TrialRules((rule,), leaves, keys, not self.sent.isdisjoint(keys)))
        return proven(self.plan, trials)

    def hint(self, rule: str, members: Sequence[Pair]) -> Hint:
        """What is said of pairs that one rule is for."""
        keys, leaves = members[0].keys, [leaf for pair in members for leaf in pair.leaves]
        first = any(key in self.sent for pair in members for key in pair.keys)
        shape = None if self.same(members[0]) else self.unused[keys[0]].shape
        return Hint(_shown(keys), len(keys) > 1, shape, (rule,), first, len(leaves) if len(members) > 1 else 1)

    def open_hint(self, pair: Pair) -> Hint:
        """What is said of a pair that is a guess."""
        shape = None if self.same(pair) else self.unused[pair.keys[0]].shape
        others = [name for name in pair.others if pair.near and name not in _shown(pair.keys)]
        return Hint((*_shown(pair.keys), *others), len(pair.keys) > 1 or bool(others), shape)

    def same(self, pair: Pair) -> bool:
        """Whether the keys have the shape of the leaf, or of its layers."""
        leaf, key = self.missing[pair.leaves[0]].shape, self.unused[pair.keys[0]].shape
        return leaf[len(leaf) - len(key) :] == key

    def misspelt(self, pair: Pair) -> bool:
        """Whether the name of a guess is nearly the leaf's."""
        return _ratio(template(pair.keys[0])[0], template(pair.leaves[0])[0]) >= _CLOSE

    def sounds_like_another(self, pair: Pair) -> bool:
        """Whether a key is called as another missing leaf of the shape, and not as its own: `embed_out` for `head`."""
        words, own = _words(pair.keys[0]), _words(pair.leaves[0])
        if own & words:
            return False
        shape = self.missing[pair.leaves[0]].shape
        return any(_words(name) and _words(name) <= words for name, leaf in self.missing.items() if leaf.shape == shape)

    def places(self, free: Sequence[str]) -> dict[tuple[str, bool], Hint]:
        """For stacks of which some places are missing: keys that are nearly called as those that are looked for."""
        found: dict[tuple[str, bool], Hint] = {}
        for problem in self.plan.problems.missing:
            spec, key = self.plan.leaves.get(problem.name), problem.key
            if not problem.place or spec is None or key is None:
                continue
            shapes = [spec.shape[depth:] for depth in range(len(spec.shape) + 1)]
            near = [(_ratio(key, other), other) for other in free if self.unused[other].shape in shapes]
            near = [each for each in near if each[0] >= _CLOSE and template(each[1])[1] == template(key)[1]]
            if near:
                name = template(problem.name)[0]
                before = found.get((name, True))
                shown = (*before.candidates, max(near)[1]) if before else (max(near)[1],)
                found[name, True] = Hint(_shown(shown), len(shown) > 1)
        return found

    @cached_property
    def turned(self) -> bool:
        """Whether anything is stored transposed: what is square may be, too."""
        rules = any(is_turning(rule) for rule in self.plan.request.rules)
        return rules or any(p.expected == p.got[::-1] != p.got for p in self.plan.problems.mismatched)

    def turnable(self, pair: Pair) -> bool:
        """Whether names are no sign that the axes of a square matrix are in the same order."""
        ends = {name.rpartition(".")[2].lower() for name in (pair.leaves[0], pair.keys[0])}
        return len(ends) > 1 or self.turned


def _shown(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(name for name, _ in fold(names))


def _words(name: str) -> set[str]:
    """The words that a tensor's module is called by."""
    return set(name.rpartition(".")[0].rpartition(".")[2].lower().split("_")) - {""}


def _ratio(one: str, other: str) -> float:
    return SequenceMatcher(None, one, other).ratio()


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
