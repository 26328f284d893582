"""Whether rules that might be offered do what they say: the plan is made again with them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from bridge._errors import BridgeError
from bridge.rules.rule import Rule

if TYPE_CHECKING:
    from bridge.planning.plan import Plan


class TrialRules(NamedTuple):
    """Rules, the leaves that they should fill, the keys that they should take, and whether they have to stand first."""

    rules: tuple[str, ...]
    leaves: frozenset[str]
    keys: frozenset[str]
    first: bool = False


def proven(plan: Plan, proposals: Sequence[TrialRules]) -> list[bool]:
    """For each proposal whether its leaves are filled and its keys used up; none is good if anything else suffers."""
    from bridge.planning.plan import make_plan

    if not proposals:
        return []
    assert plan.template is not None
    try:
        front = _rules(p for p in proposals if p.first)
        rules = (*front, *plan.request.rules, *_rules(p for p in proposals if not p.first))
        made = make_plan(plan.specs, plan.template, plan.request._replace(rules=rules), source=plan.source)
    except BridgeError:
        return [False] * len(proposals)
    before, after = plan.problems, made.problems
    worse = {problem.leaf for problem in after.missing} - {problem.leaf for problem in before.missing}
    worse |= {problem.key for problem in after.unexpected} - {problem.key for problem in before.unexpected}
    if worse:
        return [False] * len(proposals)
    bad = {problem.name for problem in (*after.missing, *after.mismatched)}
    bad |= {problem.key for problem in (*after.unexpected, *after.mismatched)}
    for conflict in after.conflicts:
        bad |= {conflict.subject.partition("[")[0], *conflict.keys}
    told = {conflict.subject for conflict in after.conflicts}
    return [
        bad.isdisjoint(p.leaves) and bad.isdisjoint(p.keys) and not any(f"rule '{rule}'" in told for rule in p.rules)
        for p in proposals
    ]


def _rules(proposals: Iterable[TrialRules]) -> list[Rule]:
    return [Rule(text) for proposal in proposals for text in proposal.rules]
