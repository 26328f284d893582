"""A plan in words: what goes where, folded; and everything that is wrong, in one report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, TypeVar

from bridge._text import fold, human_nbytes, is_index, plural, printable, quote, template

if TYPE_CHECKING:
    from bridge.mapping.block import Block
    from bridge.mapping.problem import Mismatched, Missing, Unexpected
    from bridge.mapping.template import Spec
    from bridge.planning.plan import Plan

_SHOWN = 40
P = TypeVar("P")


def recipe_text(plan: Plan) -> str:
    """What goes where: one line for keys and leaves that differ only in indices."""
    head = (
        f"{quote(plan.source)} ({plural(len(plan.specs), 'key')}) -> {plan.model} ({plural(len(plan.leaves), 'leaf')})"
    )
    counts = f"{human_nbytes(plan.nbytes)} to read"
    rows = _rows(plan.blocks, plan)
    width = min(max((len(left) for left, _ in rows), default=0), 72)
    lines = [f"{head}, {counts}", *(f"  {left:<{width}} -> {right}" for left, right in rows)]
    for title, names in (("dropped", plan.dropped), ("ignored", plan.allowed), ("kept from the template", plan.kept)):
        lines += [f"  {title}: {printable(name)}" for name, _ in fold(names)]
    lines += [f"  filled by their layers: {printable(name)}" for name, _ in fold(plan.fills)]
    lines += [f"  matched nothing: '{rule}'" for rule in plan.idle]
    return "\n".join(lines)


def _rows(blocks: Iterable[Block], plan: Plan) -> list[tuple[str, str]]:
    """Left and right sides of the recipe."""
    groups: dict[tuple[str, ...], tuple[list[str], list[str]]] = {}
    for block in blocks:
        for number, term in enumerate(block.terms):
            spec = plan.specs[term.keys[0]]
            note = _note(block, spec.dtype.name, plan.leaves[block.leaf].dtype.name, number)
            texts = dict.fromkeys(template(key)[0] for key in term.keys)
            kinds = (*texts, template(block.leaf)[0], _spelled(spec), _spelled(plan.leaves[block.leaf]), note)
            keys, leaves = groups.setdefault(kinds, ([], []))
            keys += term.keys
            leaves.append(block.leaf)
    rows: list[tuple[str, str]] = []
    for (*_, key_spec, leaf_spec, note), (keys, leaves) in groups.items():
        left = ", ".join(printable(name) for name, _ in fold(dict.fromkeys(keys)))
        right = ", ".join(printable(name) for name, _ in fold(dict.fromkeys(leaves)))
        rows.append((f"{left} {key_spec}", f"{right} {leaf_spec}{note}"))
    return rows


def _spelled(spec: Spec) -> str:
    return f"{spec.dtype.name}[{', '.join(map(str, spec.shape))}]"


def _note(block: Block, stored: str, dtype: str, term: int) -> str:
    notes = [text for text, on in (("tie", block.tie), ("copy", block.copy), ("added", term > 0)) if on]
    if stored != dtype:
        notes.append(f"cast from {stored}")
    notes += [f"scale {block.scale}"] * (block.scale != 1) + [f"add {block.add}"] * (block.add != 0)
    return f"  ({', '.join(notes)})" if notes else ""


def problems_text(plan: Plan) -> str:
    """Every problem, those of one kind that differ only in indices as one."""
    entries = [*_missing(plan), *_unexpected(plan), *_mismatched(plan), *_conflicts(plan)]
    head = (
        f"{plural(len(entries), 'problem')} between {quote(plan.source)} ({plural(len(plan.specs), 'key')}) "
        f"and {plan.model} ({plural(len(plan.leaves), 'leaf')})"
    )
    lines = [head]
    for entry in entries[:_SHOWN]:
        lines += [f"  {entry[0]}", *(f"              {more}" for more in entry[1:])]
    if len(entries) > _SHOWN:
        lines.append(f"  … and {len(entries) - _SHOWN} more: plan.missing, .unexpected and .mismatched have them all")
    return "\n".join(lines)


def _missing(plan: Plan) -> list[list[str]]:
    unused = [problem.key for problem in plan.problems.unexpected]
    entries: list[list[str]] = []
    for label, members in _folded(plan.problems.missing, lambda problem: problem.leaf):
        keys = [problem.key for problem in members if problem.key is not None]
        shown = " or ".join(quote(name) for name, _ in fold(keys)[:3]) if keys else "of its rule"
        entry = [f"missing     {printable(label)}   no key {shown}"]
        if members[0].key is not None and (near := _near(plan, members[0], unused)):
            entry.append(f"did you mean {quote(near)} (unused, same shape)?")
            if "[" not in label and len(members) == 1:
                entry.append(f'if so, the rule is "{printable(near)} -> {printable(label)}"')
        elif hint := plan.hints.get(members[0].leaf):
            entry.append(hint)
        entries.append(entry)
    return entries


def _near(plan: Plan, problem: Missing, unused: Sequence[str]) -> str | None:
    """The unused key that looks most like the missing one and has the shape that is needed."""
    leaf = plan.leaves[problem.leaf.split("[")[0]].shape
    depth = problem.leaf.count("[") and problem.leaf.split("[")[1].count(",") + 1
    # A key that differs only in its index is another layer, not a slip of the pen.
    own = template(problem.key or "")[0]
    shaped = [key for key in unused if plan.specs[key].shape == leaf[depth:] and template(key)[0] != own]
    found = get_close_matches(problem.key or "", shaped[:5000], n=1, cutoff=0.6)
    return found[0] if found else None


def _unexpected(plan: Plan) -> list[list[str]]:
    entries: list[list[str]] = []
    for reason in dict.fromkeys(problem.reason for problem in plan.problems.unexpected):
        group = [problem for problem in plan.problems.unexpected if problem.reason == reason]
        for label, members in _folded(group, lambda problem: problem.key):
            count = f"   ({plural(len(members), 'key')})" if len(members) > 1 else ""
            entry = [f"unexpected  {printable(label)}{count}"]
            if reason:
                entry.append(printable(reason))
            entry.append(f'if they are not needed: allow_unexpected=["{_pattern(members)}"]')
            entries.append(entry)
    return entries


def _pattern(problems: Sequence[Unexpected]) -> str:
    """A pattern for just these keys, as long as they have a tail of their own."""
    key = problems[0].key
    if len(problems) == 1:
        return printable(key)
    segments = key.split(".")
    last = max((n for n, segment in enumerate(segments) if is_index(segment)), default=-1)
    return (
        printable(".".join(["**", *segments[last + 1 :]])) if last + 1 < len(segments) else printable(template(key)[0])
    )


def _mismatched(plan: Plan) -> list[list[str]]:
    entries: list[list[str]] = []
    kinds = dict.fromkeys((p.expected, p.got, p.reason) for p in plan.problems.mismatched)
    for expected, got, reason in kinds:
        group = [p for p in plan.problems.mismatched if (p.expected, p.got, p.reason) == (expected, got, reason)]
        for label, members in _folded(group, lambda problem: problem.leaf):
            keys = ", ".join(quote(name) for name, _ in fold(problem.key for problem in members)[:3])
            entries.append(_mismatch(plan, label, members[0], keys, several=len(members) > 1))
    return entries


def _mismatch(plan: Plan, label: str, problem: Mismatched, keys: str, *, several: bool) -> list[str]:
    if problem.expected == problem.got:
        return [f"mismatched  {printable(label)}   {keys}: {problem.reason}"]
    wanted = problem.expected
    have = f"needs {wanted}" if wanted is not None else f"the model has {plan.leaves[problem.leaf.split('[')[0]].shape}"
    entry = [f"mismatched  {printable(label)}   {have}, {keys} {'are' if several else 'is'} {problem.got}"]
    if problem.reason:
        entry.append(printable(problem.reason))
    if wanted is not None and len(wanted) == 2 and wanted == problem.got[::-1]:
        entry.append(
            f'if it is stored transposed, say so: "{printable(problem.key)} [a b] -> {printable(problem.leaf.split("[")[0])} [b a]"'
        )
    return entry


def _conflicts(plan: Plan) -> list[list[str]]:
    return [[f"conflict    {printable(p.subject)}", printable(p.text)] for p in plan.problems.conflicts]


def _folded(problems: Iterable[P], name: Callable[[P], str]) -> list[tuple[str, list[P]]]:
    """Problems under one label where their names differ only in indices; `w[3]` and `w[7]` fold as `w[3,7]`."""
    by_name: dict[str, P] = {name(problem): problem for problem in problems}
    plain = [text for text in by_name if not text.endswith("]")]
    folded = [(label, [by_name[text] for text in texts]) for label, texts in fold(plain)]
    stacked: dict[str, list[str]] = {}
    for text in by_name:
        if text.endswith("]"):
            stacked.setdefault(text.split("[")[0], []).append(text)
    for leaf, texts in stacked.items():
        places = [text[len(leaf) :] for text in texts]
        simple = all(place[1:-1].isdecimal() for place in places)
        label = leaf + (f"[{','.join(place[1:-1] for place in places)}]" if simple else " ".join(places))
        folded.append((label, [by_name[text] for text in texts]))
    return folded
