"""Everything that is wrong, in one report: subject first, what was expected, what came, what to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Protocol, TypeVar

from bridge._text import fold, plural, printable, quote, ranges, safe
from bridge.planning.suggest import Group, Suggestions, grouped, pattern_for, rule_for, tail

if TYPE_CHECKING:
    from bridge.mapping.problem import Mismatched, Missing, Unexpected
    from bridge.planning.plan import Plan

_SHOWN = 40  # entries; the lists of the plan have them all
_NAMES = 3  # names in one entry
# Buffers that PyTorch models save and others compute.
_COMPUTED = ("inv_freq", "position_ids", "masked_bias", "relative_position_index", "attn.bias")


def problems_text(plan: Plan) -> str:
    """Every problem, those of one kind that differ only in indices as one."""
    return safe("\n".join(_Report(plan).lines()))


class _Placed(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def place(self) -> str: ...


P = TypeVar("P", bound=_Placed)


class _Report:
    """The problems of one plan, written out only as far as they are shown."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.problems = plan, plan.problems

    def lines(self) -> Iterator[str]:
        """The whole report."""
        missing = _by_label(self.problems.missing)
        unexpected = self.unexpected_groups()
        mismatched = [part for kind in self.mismatched_kinds() for part in _by_label(kind)]
        count = len(missing) + len(unexpected) + len(mismatched) + len(self.problems.conflicts)
        keys, leaves = plural(len(self.plan.specs), "key"), plural(len(self.plan.leaves), "leaf")
        nature = self.problems.nature
        first = (
            f"{plural(count, 'problem')} between {quote(self.plan.source)} ({keys}) and {self.plan.model} ({leaves})"
        )
        yield first if nature is None else f"{first}: {printable(nature.said)}"
        if nature is not None:
            yield f"  {printable(nature.advice)}"
        entries = self.entries(missing, unexpected, mismatched)
        for _, (first, *more) in zip(range(_SHOWN), entries, strict=False):
            yield f"  {first}"
            yield from (f"              {line}" for line in more)
        if count > _SHOWN:
            yield f"  … and {count - _SHOWN:,} more: plan.missing, plan.unexpected and plan.mismatched have them all"

    def entries(
        self,
        missing: Sequence[tuple[str, list[Missing]]],
        unexpected: Sequence[tuple[str, list[Unexpected]]],
        mismatched: Sequence[tuple[str, list[Mismatched]]],
    ) -> Iterator[list[str]]:
        """The lines of each problem."""
        yield from (self.missing(label, members) for label, members in missing)
        yield from (self.unexpected(label, members) for label, members in unexpected)
        yield from (self.mismatched(label, members) for label, members in mismatched)
        for conflict in self.problems.conflicts:
            yield [f"conflict    {printable(conflict.subject)}", *map(printable, conflict.text.splitlines())]

    # Missing

    def missing(self, label: str, members: Sequence[Missing]) -> list[str]:
        """A leaf that nothing fills, and the unused key that may have been meant."""
        keys = [problem.key for problem in members if problem.key is not None]
        if not keys:
            absent = "no rule fills it"
        elif len(keys) == 1 and keys[0] in self.plan.specs:
            absent = self.elsewhere(keys[0])
        else:
            absent = f"no key {_names(name for name, _ in fold(keys))}"
        entry = [f"missing     {label}   {absent}"]
        near = self.near(members, keys)
        if near is not None:
            several = len(near.names) > 1
            entry.append(f"did you mean {_names(near.shown)} (unused, same shape{'s' * several})?")
            if not members[0].place:
                entry.append(f"if so, the rule is {_literal(rule_for(near, members[0].name))}")
        elif hint := self.plan.hints.get(members[0].name):
            entry.append(hint)
        return entry

    def elsewhere(self, key: str) -> str:
        """Where a key went that is there, but did not come to its leaf."""
        if key in self.plan.dropped:
            return f"{quote(key)} is dropped by the rule {quote(self.plan.dropped[key])}"
        leaf = self.taken.get(key)
        if leaf is None:
            return f"{quote(key)} does not come to it"
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

    def near(self, members: Sequence[Missing], keys: Sequence[str]) -> Group | None:
        """The unused keys that look most like the missing ones and fit in their place."""
        places = [_numbers(problem.place) for problem in members if problem.place]
        if None in places:
            return None
        specs = [self.plan.leaves.get(problem.name) for problem in members]
        shapes = {None if spec is None else spec.shape for spec in specs}
        shape = shapes.pop()
        if shape is None or shapes:
            return None
        names = list(dict.fromkeys(problem.name for problem in members))
        return self.suggestions.near(names, keys, shape, [place for place in places if place is not None])

    @cached_property
    def suggestions(self) -> Suggestions:
        """What the unused keys suggest."""
        unused = [problem.key for problem in self.problems.unexpected if not problem.axes and not self.told(problem)]
        return Suggestions(unused, {key: self.plan.specs[key].shape for key in unused})

    # Unexpected

    def unexpected_groups(self) -> list[tuple[str, list[Unexpected]]]:
        """Keys by reason, then those that differ only in indices."""
        kinds: dict[tuple[str, str, bool], dict[str, Unexpected]] = {}
        for problem in self.problems.unexpected:
            kinds.setdefault((problem.reason, problem.axes, self.told(problem)), {})[problem.key] = problem
        return [(label, [kind[key] for key in keys]) for kind in kinds.values() for label, keys in fold(kind)]

    def unexpected(self, label: str, members: Sequence[Unexpected]) -> list[str]:
        """A key that no leaf takes, and how to say that this is meant."""
        several = len(members) > 1
        count = f"   ({plural(len(members), 'key')})" if several else ""
        entry = [f"unexpected  {printable(label)}{count}"]
        reason, axes = members[0].reason, members[0].axes
        if reason:
            entry.append(printable(reason))
        if self.told(members[0]):
            return entry
        (group,) = grouped(problem.key for problem in members)
        if axes:
            entry.append(f"to drop them on purpose: {_literal(f'{pattern_for(group, {})} {axes} -> _')}")
            return entry
        pattern = pattern_for(group, self.tails if several else {})
        key = f".{members[0].key}"
        if any(key.endswith(f".{name}") for name in _COMPUTED):
            why = "if the model computes them" if several else "if the model computes it"
        else:
            why = "if they are not needed" if several else "if it is not needed"
        entry.append(f"{why}: allow_unexpected=[{_literal(pattern)}]")
        return entry

    def told(self, problem: Unexpected) -> bool:
        """Whether the first line says what is to be done about a key."""
        return self.problems.nature is not None and problem.key in self.problems.nature.keys

    @cached_property
    def tails(self) -> Counter[str]:
        """How many keys end alike."""
        return Counter(map(tail, self.plan.specs))

    # Mismatched

    def mismatched_kinds(self) -> list[list[Mismatched]]:
        """Keys of one shape that should have one other shape."""
        kinds: dict[object, list[Mismatched]] = {}
        for problem in self.problems.mismatched:
            kinds.setdefault((problem.expected, problem.got, problem.reason), []).append(problem)
        return list(kinds.values())

    def mismatched(self, label: str, members: Sequence[Mismatched]) -> list[str]:
        """A key whose shape or dtype is not what its leaf needs."""
        problem, wanted = members[0], members[0].expected
        keys = _names(name for name, _ in fold(problem.key for problem in members))
        are = "are" if len(members) > 1 else "is"
        if wanted == problem.got:
            return [f"mismatched  {label}   {keys}: {printable(problem.reason)}"]
        leaf = self.plan.leaves[problem.name].shape if problem.name in self.plan.leaves else wanted
        own = wanted is None or (wanted == leaf and not problem.reason and not problem.place)
        have = f"the model has {leaf}" if own else f"needs {wanted}"
        entry = [f"mismatched  {label}   {have}, {keys} {are} {problem.got}"]
        if problem.reason:
            entry.append(printable(problem.reason))
        elif wanted is not None and len(wanted) == 2 and wanted == problem.got[::-1]:
            (group,) = grouped(problem.key for problem in members)
            key, _, name = rule_for(group, problem.name).partition(" -> ")
            if len(members) == 1 or len(grouped(problem.name for problem in members)) == 1:
                entry.append(f"if it is stored transposed, say so: {_literal(f'{key} [a b] -> {name} [b a]')}")
        return entry


def _names(shown: Iterable[str]) -> str:
    """A few names in quotes."""
    names = [quote(name) for name in shown]
    return " or ".join(names[:_NAMES]) + (" …" if len(names) > _NAMES else "")


def _literal(text: str) -> str:
    """A text as Python writes it, ready to paste."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{printable(escaped)}"'


def _numbers(place: str) -> tuple[int, ...] | None:
    """The numbers of `[0, 3]`; `None` for a place that is no single one."""
    parts = place[1:-1].split(", ")
    return tuple(map(int, parts)) if all(part.isdecimal() for part in parts) else None


def _by_label(problems: Iterable[P]) -> list[tuple[str, list[P]]]:
    """Problems under one label where they differ only in indices: of a name, or of a place in one leaf."""
    whole: dict[str, list[P]] = {}
    parts: dict[str, dict[str, list[P]]] = {}
    for problem in problems:
        if problem.place:
            parts.setdefault(problem.name, {}).setdefault(problem.place, []).append(problem)
        else:
            whole.setdefault(problem.name, []).append(problem)
    found = [(printable(label), [p for name in names for p in whole[name]]) for label, names in fold(whole)]
    for name, places in parts.items():
        numbers = {place: _numbers(place) for place in places}
        single = {n[0]: place for place, n in numbers.items() if n is not None and len(n) == 1}
        if len(single) == len(places):
            members = [p for n in sorted(single) for p in places[single[n]]]
            found.append((f"{printable(name)}[{ranges(single)}]", members))
        else:
            found += [(f"{printable(name)}{place}", members) for place, members in places.items()]
    return found
