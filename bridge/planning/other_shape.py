"""What to do about a key of another shape than its leaf has: the rule that says how it is meant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bridge.mapping.indexmap import Shape
from bridge.mapping.problem import Mismatched
from bridge.planning.suggest import grouped, rule_for
from bridge.rules.syntax import literal

if TYPE_CHECKING:
    from bridge.planning.plan import Plan

# Of tensors whose names have one of these the rows are words.
_WORDS = ("embed", "emb.", "wte", "tok", "vocab", "lm_head", "shared.")


class OtherShapes:
    """The advice for the mismatched keys of one plan, none twice."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.said: set[str] = set()

    def advice(self, members: Sequence[Mismatched]) -> str | None:
        """What to do about keys that differ only in indices, and so do their leaves."""
        problem = members[0]
        wanted, got = problem.expected, problem.got
        if problem.reason or wanted is None or len(grouped(each.name for each in members)) > 1:
            return None
        (group,) = grouped(each.key for each in members)
        key, _, leaf = rule_for(group, problem.name).partition(" -> ")
        if len(wanted) == 2 and wanted == got[::-1]:
            return f"if it is stored transposed, say so: {quoted(f'{key} [a b] -> {leaf} [b a]')}"
        if problem.place:
            return None
        if [n for n in wanted if n != 1] == [n for n in got if n != 1] and len(wanted) != len(got):
            rule = quoted(f"{key} {_units(got)} -> {leaf} {_units(wanted)}")
            return f"the rule {rule} makes its axes of length 1 fit"
        if len(members) > 1 or len(wanted) != len(got) or not wanted or wanted[1:] != got[1:]:
            return None
        if any(word in f"{problem.name}." for word in _WORDS):
            return _rows(problem, wanted[0], got[0])
        return self.head(problem)

    def head(self, problem: Mismatched) -> str | None:
        """How to leave a head out that is not the model's."""
        wrong = {each.name for each in self.plan.problems.mismatched}
        wrong |= {each.name for each in self.plan.problems.missing}
        refused = {each.key for each in self.plan.problems.mismatched}
        leaf = _below(problem.name, self.plan.leaves.keys() - wrong)
        key = _below(problem.key, self.plan.specs.keys() - refused)
        rule = quoted(f"{key} -> _")
        text = f"if the model has a head of its own: {rule} as the first rule, allow_missing=[{quoted(leaf)}]"
        if text in self.said:
            return None
        self.said.add(text)
        return text


def _below(name: str, others: set[str]) -> str:
    """A pattern for all that stands in the module of a name, where all of it is meant; else the name."""
    module, dot, _ = name.rpartition(".")
    if not dot or any(other.startswith(f"{module}.") for other in others):
        return str(literal(name))
    return f"{literal(module)}.**"


def _rows(problem: Mismatched, wanted: int, got: int) -> str:
    """Rows that one of the two has more, as padding of a vocabulary."""
    key, leaf = literal(problem.key), literal(problem.name)
    names = "abcdefgh"[: len(problem.got)]
    rest = "".join(f" {name}" for name in names[1:])
    if got > wanted:
        rules = f"{key} [a[:{wanted}]{rest}] -> {leaf} [a{rest}]", f"{key} [a[{wanted}:]{rest}] -> _"
        return f"if its other rows are padding: {', '.join(map(quoted, rules))}"
    rule = f"{key} [a{rest}] -> {leaf} [a[:{got}]{rest}]"
    return f"if the model has rows to spare: {quoted(rule)}, allow_missing=[{quoted(str(leaf))}]"


def _units(shape: Shape) -> str:
    """Axes by name, those of one as they are."""
    names = iter("abcdefghijklmnop")
    return f"[{' '.join('1' if n == 1 else next(names) for n in shape)}]"


def quoted(text: str) -> str:
    """A text as Python writes it, ready to paste."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
