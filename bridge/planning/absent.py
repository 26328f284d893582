"""What a report says of a leaf that is missing: which key was looked for, or where the key went."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from bridge._text import fold, quote, template
from bridge.mapping.problem import Missing
from bridge.mapping.template import Template
from bridge.planning.summed import Sums, sum_rule

if TYPE_CHECKING:
    from bridge.planning.plan import Plan
    from bridge.planning.sought import Sought

_MANY = 1000  # leaves of one entry that are asked for one by one; of more the first and the last
_NAMES = 3  # names in one entry


class Absence(NamedTuple):
    """Why a leaf is missing, and the rule that has to stand in the place of others, if that is known.

    `stored` says that the checkpoint has the key.
    """

    text: str
    instead: str | None = None
    stored: bool = False


class Absent:
    """The keys of missing leaves: as the rules spell them, else as the layout or the leaf is called.

    `entries` are the problems that are shown, each with those that differ only in indices.
    """

    def __init__(self, plan: Plan, entries: Iterable[Sequence[Missing]]) -> None:
        self.plan, self.entries = plan, entries

    def of(self, members: Sequence[Missing]) -> Absence:
        """Why leaves are missing that differ only in indices."""
        few = _few(members)
        keys = list(dict.fromkeys(key for problem in few for key in self.keys(problem)))
        stored = [key for key in keys if key in self.plan.specs]
        added = self.sum_of(members[0].name, stored)
        if added is not None:
            return Absence(f"{quote(stored[0])} is one of the keys that its layer adds", added, stored=True)
        if not keys:
            return Absence("no rule fills it")
        if len(keys) == 1 and stored:
            return Absence(self.elsewhere(keys[0], members[0]), stored=True)
        shown = [name for name, _ in fold(keys)]
        if len(few) < len(members) or self.is_range(few[0]):
            from bridge.planning.sought import between

            joined = between(keys[0], keys[-1])
            shown = shown if joined is None else [joined]
        names = " or ".join(map(quote, shown[:_NAMES])) + (" …" if len(shown) > _NAMES else "")
        return Absence(f"no key {names}{self.by_rule(members[0])}")

    def keys(self, problem: Missing) -> list[str]:
        """The keys that were looked for."""
        found = self.sought.get(problem.name)
        if found is not None and self.plan.template is not None:
            from bridge.planning.sought import place_of

            keys = found.keys(place_of(problem, self.plan.template))
            absent = [key for key in keys if key not in self.plan.specs]
            if problem.key in absent:
                return [problem.key]
            if absent or len(keys) == 1:
                return absent or keys
        return [] if problem.key is None else [problem.key]

    def is_range(self, problem: Missing) -> bool:
        """Whether only the ends of what is missing are spelled."""
        if self.plan.template is None or problem.name not in self.sought:
            return False
        from bridge.planning.sought import is_long, place_of

        return is_long(place_of(problem, self.plan.template))

    def by_rule(self, problem: Missing) -> str:
        """The rule that looked for a key and found none at all."""
        found = self.sought.get(problem.name)
        return f" (rule {found.number + 1})" if found is not None and str(found.rule) in self.plan.idle else ""

    @cached_property
    def sought(self) -> dict[str, Sought]:
        """By what the rules spell, the keys of the missing leaves that are shown."""
        model, rules = self.plan.template, self.plan.request.rules
        if model is None or not rules:
            return {}
        from bridge.planning.sought import sought  # rules are read backwards only where there are some

        return sought(rules, model, (problem for members in self.entries for problem in _few(members)))

    def elsewhere(self, key: str, problem: Missing) -> str:
        """Where a key went that is there, but did not come to its leaf."""
        if key in self.plan.dropped:
            return f"{quote(key)} is dropped by the rule {quote(self.plan.dropped[key])}"
        leaf = self.taken.get(key)
        if leaf is None:
            return f"{quote(key)} does not come to it"
        if leaf == problem.name:
            return f"{quote(key)} does not reach it"
        if template(leaf)[0] == template(problem.name)[0]:
            return "no rule fills it"  # another layer has the key, and a copy of it would be another model
        return f"{quote(key)} goes to {quote(leaf)} (a rule that takes nothing away says 'copy=true')"

    @cached_property
    def taken(self) -> dict[str, str]:
        """The leaf that each key goes to."""
        return {
            key: leaf
            for block in self.plan.blocks
            for term in block.terms
            for key, leaf in zip(term.keys, block.leaves, strict=True)
        }

    # Sums

    def sum_of(self, leaf: str, keys: Sequence[str]) -> str | None:
        """The rule for a leaf that is the sum of keys which are there, where some of `keys` come to it alone."""
        if leaf not in self.sums.terms or not keys:
            return None
        found = self.sums.keys(leaf, [key for key in keys if key in self.taken] or keys)
        return sum_rule(leaf, found) if found else None

    def conflicting(self, leaf: str, keys: Sequence[str]) -> str | None:
        """The rule for a leaf that several keys fill, where its layer adds as many."""
        terms = self.sums.terms.get(leaf, ())
        found = self.sums.keys(leaf, keys)
        if not found and any(len(each) == len(set(keys)) for each in terms):
            found = sorted(set(keys), key=list(self.plan.specs).index)
        return sum_rule(leaf, found) if found else None

    @cached_property
    def halves(self) -> dict[str, str]:
        """Keys of sums of which another key fills the leaf alone, with the rule of the sum."""
        found: dict[str, str] = {}
        for key, leaf in self.taken.items() if self.sums.terms else ():
            keys = self.sums.keys(leaf, [key])
            found |= dict.fromkeys(keys, sum_rule(leaf, keys))
        return found

    @cached_property
    def sums(self) -> Sums:
        """The leaves that layouts add."""
        return Sums(Template({}) if self.plan.template is None else self.plan.template, self.plan.specs)


def _few(members: Sequence[Missing]) -> Sequence[Missing]:
    """The problems of one entry that are looked at: of very many the first and the last."""
    return members if len(members) <= _MANY else (members[0], members[-1])
