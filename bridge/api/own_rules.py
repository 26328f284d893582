"""Rules that are given for a converted checkpoint: they may only be its own."""

from __future__ import annotations

from bridge._errors import PlanError
from bridge._text import quote
from bridge.converted.record import plan_of, read_record
from bridge.planning.plan import PlanRequest
from bridge.rules.rule import Rule
from bridge.source.checkpoint import Checkpoint


def without_own_rules(ckpt: Checkpoint, request: PlanRequest) -> PlanRequest:
    """The request without the rules by which the checkpoint was converted. **Raises:** `PlanError` for other rules."""
    if not all(map(_names_one, request.rules)):
        record = read_record(ckpt)
        given = [str(rule) for rule in request.rules]
        sides = [text.split(" -> ") for text in given]
        its_own_plan = all(key == leaf and key in ckpt for key, leaf in sides)
        its_own_plan = its_own_plan or given in (record["rules"], record["plan"]["rules"])
        # Another release may have spelled the rules of the same plan otherwise.
        if not its_own_plan and given != list(plan_of(record, ckpt).texts):
            raise PlanError(
                quote(ckpt.source),
                "was converted by other rules than these",
                "Load it without rules, or convert the original again",
            )
    return request._replace(rules=())


def _names_one(rule: Rule) -> bool:
    """Whether a rule maps one name to itself, as all rules of a plan for a converted checkpoint do."""
    return str(rule) == f"{rule.keys[0]} -> {rule.keys[0]}" and "*" not in str(rule)
