"""Everything that is wrong, in one report: subject first, what was expected, what came, what to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Protocol, TypeVar

from bridge._text import fold, plural, printable, quote, ranges, safe, template
from bridge.mapping.block import filled
from bridge.mapping.template import ArraySpec, Spec
from bridge.planning.absent import Absent
from bridge.planning.hints import Hints
from bridge.planning.other_shape import OtherShapes
from bridge.planning.shares import shares
from bridge.planning.suggest import grouped, listed, pasted, pattern_for, tail
from bridge.rules.syntax import literal

if TYPE_CHECKING:
    from bridge.mapping.problem import Conflict, Mismatched, Missing, Unexpected
    from bridge.planning.plan import Plan

_SHOWN = 40  # entries; the lists of the plan have them all
_LEAVES = 100_000  # of a model whose leaves are all looked at
# Buffers that PyTorch models save and others compute.
_COMPUTED = ("inv_freq", "position_ids", "masked_bias", "relative_position_index", "attn.bias")


def problems_text(plan: Plan) -> str:
    """Every problem, those of one kind that differ only in indices as one."""
    return safe("\n".join(_ProblemReport(plan).lines()))


class _NamedProblem(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def place(self) -> str: ...


P = TypeVar("P", bound=_NamedProblem)


class _ProblemReport:
    """The problems of one plan, written out only as far as they are shown."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.problems = plan, plan.problems

    def lines(self) -> Iterator[str]:
        """The whole report."""
        missing = _by_label(self.problems.missing)
        unexpected = self.unexpected_groups()
        mismatched = [part for kind in self.mismatched_kinds() for part in _by_label(kind)]
        conflicts = self.problems.conflicts
        counts = [len(missing), len(unexpected), len(mismatched), len(conflicts)]
        keys, leaves = plural(len(self.plan.specs), "key"), plural(len(self.plan.leaves), "leaf")
        count = plural(sum(counts), "problem")
        nature = self.problems.nature
        first = f"{count} between {quote(self.plan.source)} ({keys}) and {self.plan.model} ({leaves})"
        yield first if nature is None else f"{first}: {printable(nature.said)}"
        if nature is not None:
            yield f"  {printable(nature.advice)}"
        most = shares(counts, _SHOWN)
        self.absent = Absent(self.plan, [members for _, members in missing[: most[0]]])
        entries = [
            *(self.missing(label, members) for label, members in missing[: most[0]]),
            *(self.unexpected(label, members) for label, members in unexpected[: most[1]]),
            *(self.mismatched(label, members) for label, members in mismatched[: most[2]]),
            *(self.conflict(problem) for problem in conflicts[: most[3]]),
        ]
        for first, *more in entries:
            yield f"  {first}"
            yield from (f"              {line}" for line in more)
        if sum(counts) > _SHOWN:
            kinds = zip(("missing", "unexpected", "mismatched", "conflicts"), counts, most, strict=True)
            rest = ", ".join(f"{total - shown:,} {kind}" for kind, total, shown in kinds if total > shown)
            yield f"  … and {rest} more: plan.missing, plan.unexpected and plan.mismatched have them all"

    def conflict(self, problem: Conflict) -> list[str]:
        """What else is wrong."""
        text, added = problem.text, self.absent.conflicting(problem.subject, problem.keys)
        if added is not None:
            text = f"{text.partition(': ')[0]}, which its layer adds\n{_instead(added)}"
        return [f"conflict    {printable(problem.subject)}", *map(printable, text.splitlines())]

    # Missing

    def missing(self, label: str, members: Sequence[Missing]) -> list[str]:
        """A leaf that nothing fills, and the unused key that may have been meant."""
        absence = self.absent.of(members)
        entry = [f"missing     {label}   {absence.text}{_column(map(self.part, members))}"]
        if absence.instead is not None:
            return [*entry, _instead(absence.instead)]
        near = self.hints.of(members)
        if near is not None:
            entry += near.lines()
        elif hint := self.plan.hints.get(members[0].name):
            entry.append(hint)
        elif all(problem.optional for problem in members):
            entry.append(f"to keep other values there: allow_missing=[{pasted(str(literal(members[0].name)))}]")
        elif self.problems.nature is None and not absence.stored and self.is_new(members):
            it = "they are" if len(members) > 1 else "it is"
            (leaves,) = grouped(problem.name for problem in members)
            entry.append(f"if {it} new: allow_missing=[{pasted(pattern_for(leaves, {}))}]")
        return entry

    def is_new(self, members: Sequence[Missing]) -> bool:
        """Whether leaves may be what the checkpoint has nothing for: a head, or the layers behind the last."""
        if not self.families or any(problem.place for problem in members):
            return False
        spec = self.plan.leaves.get(members[0].name)
        if spec is None or any(_bulk(spec.shape[depth:]) in self.unused for depth in range(len(spec.shape) + 1)):
            return False  # a key that is left over may be the one
        text, numbers = template(members[0].name)
        filled = self.families.get(text, ())
        return all(len(numbers) == 1 and other < numbers for other in filled)

    @cached_property
    def unused(self) -> set[tuple[int, ...]]:
        """The extents of keys that no leaf takes."""
        shapes = {self.plan.specs[problem.key].shape for problem in self.problems.unexpected}
        return set(map(_bulk, shapes))

    @cached_property
    def families(self) -> dict[str, list[tuple[int, ...]]]:
        """The leaves that keys fill, by name without indices: their indices."""
        found: dict[str, list[tuple[int, ...]]] = {}
        for leaf in filled(self.plan.blocks) if len(self.plan.leaves) <= _LEAVES else ():
            text, numbers = template(leaf)
            found.setdefault(text, []).append(numbers)
        return found

    def part(self, problem: Missing) -> Spec | None:
        """Dtype and shape of a leaf, or of the part of it that is missing."""
        spec = self.plan.leaves.get(problem.name)
        if spec is None or not problem.place:
            return spec
        shape: list[int] = []
        texts = problem.place[1:-1].split(", ")
        for text, extent in zip(texts, spec.shape, strict=False):
            first, colon, last = text.partition(":")
            shape += [int(last) - int(first) if last else extent] if colon else []
        return Spec(spec.dtype, (*shape, *spec.shape[len(texts) :]))

    @cached_property
    def hints(self) -> Hints:
        """What the unused keys may have been meant for."""
        return Hints(self.plan)

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
        entry = [f"unexpected  {printable(label)}{count}{_column(self.plan.specs[problem.key] for problem in members)}"]
        reason, axes = members[0].reason, members[0].axes
        if reason:
            entry.append(printable(reason))
        if self.told(members[0]):
            return entry
        if members[0].key in self.absent.halves:
            return [*entry, "its layer adds it to another", _instead(self.absent.halves[members[0].key])]
        (group,) = grouped(problem.key for problem in members)
        if axes:
            entry.append(f"to drop them on purpose: {pasted(f'{pattern_for(group, {})} {axes} -> _')}")
            return entry
        pattern = pattern_for(group, self.tails if several else {})
        key = f".{members[0].key}"
        if any(key.endswith(f".{name}") for name in _COMPUTED):
            why = "if the model computes them" if several else "if the model computes it"
        else:
            why = "if they are not needed" if several else "if it is not needed"
        entry.append(f"{why}: allow_unexpected=[{pasted(pattern)}]")
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
        keys = listed(name for name, _ in fold(problem.key for problem in members))
        are = "are" if len(members) > 1 else "is"
        if wanted == problem.got:
            return [f"mismatched  {label}   {keys}: {printable(problem.reason)}"]
        leaf = self.plan.leaves[problem.name].shape if problem.name in self.plan.leaves else wanted
        own = wanted is None or (wanted == leaf and not problem.reason and not problem.place)
        have = f"the model has {leaf}" if own else f"needs {wanted}"
        dtypes = self.dtypes(problem)
        entry = [f"mismatched  {label}   {have}, {keys} {are} {problem.got}{dtypes}"]
        if problem.reason:
            entry.append(printable(problem.reason))
        elif (advice := self.shapes.advice(members)) is not None:
            entry.append(printable(advice))
        return entry

    def dtypes(self, problem: Mismatched) -> str:
        """What a leaf and its key hold."""
        leaf, key = self.plan.leaves.get(problem.name), self.plan.specs[problem.key].dtype.name
        return f"   {key}" if leaf is None or leaf.dtype.name == key else f"   {leaf.dtype.name} from {key}"

    @cached_property
    def shapes(self) -> OtherShapes:
        """What to do about keys of other shapes."""
        return OtherShapes(self.plan)


def _bulk(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Extents in any order, without those of one."""
    return tuple(sorted(extent for extent in shape if extent != 1))


def _instead(rule: str) -> str:
    return f"write {pasted(rule)} in place of the rules that name them one by one"


def _column(specs: Iterable[ArraySpec | None]) -> str:
    """Dtype and shape of what an entry is about, where all have one."""
    first: ArraySpec | None = None
    for spec in specs:
        if spec is None or (first is not None and (spec.dtype, spec.shape) != (first.dtype, first.shape)):
            return ""
        first = spec
    return "" if first is None else f"   {first.dtype.name}[{', '.join(map(str, first.shape))}]"


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
