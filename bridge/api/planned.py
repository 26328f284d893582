"""From the arguments of a public function to a plan: the keys, the request, and the proof."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bridge._errors import PlanError
from bridge.mapping.pattern import NamePatterns
from bridge.mapping.template import Template
from bridge.planning.plan import Plan, PlanRequest, make_plan
from bridge.planning.policy import DtypePolicy
from bridge.rules.rule import rules_of

if TYPE_CHECKING:
    from bridge.api.arguments import Adapters, AllowMissing, Layouts, OpenOptions, Rules
    from bridge.source.adapter import OpenAdapter
    from bridge.source.checkpoint import Checkpoint


def also_opened(adapters: Adapters, options: OpenOptions) -> AbstractContextManager[Sequence[OpenAdapter]]:
    """The open adapters of an argument."""
    if isinstance(adapters, list | tuple) and not adapters:
        return nullcontext(())
    from bridge.api.adapters import opened_adapters  # few loads have any

    return opened_adapters(adapters, options)


def request_of(
    rules: Rules,
    dtype: Any,
    allow_missing: AllowMissing,
    allow_unexpected: Sequence[str] | str,
    sharding: Any = None,
    quantized: str | Mapping[str, Any] | None = None,
    adapters: Sequence[OpenAdapter] = (),
) -> PlanRequest:
    """The request of a call. A `Plan` as rules also brings the request that it was made for, except for adapters.

    **Raises:** `PlanError` if such a plan merges adapters and the call gives none: a plan does not open them.
    """
    missing, unexpected = NamePatterns.of(allow_missing), NamePatterns.of(allow_unexpected)
    policy = DtypePolicy.of(dtype)
    fillers = dict(allow_missing) if isinstance(allow_missing, Mapping) else {}
    before = rules.request if isinstance(rules, Plan) else PlanRequest()
    codes = before.quantized
    merged = tuple((adapter.label, adapter.weight) for adapter in adapters)
    if before.adapters and not merged:
        from bridge.api.adapters import check_given  # few plans have any

        check_given(before.adapters)
    if quantized is not None:
        from bridge.api.quantized import quantized_of  # few say it

        codes = quantized_of(quantized)
    if not isinstance(rules, Plan):
        return PlanRequest(rules_of(rules), policy, missing, unexpected, fillers, sharding, codes, merged)
    return PlanRequest(
        before.rules,
        policy if dtype is not None else before.dtype,
        NamePatterns.of((*before.allow_missing.texts, *missing.texts)),
        NamePatterns.of((*before.allow_unexpected.texts, *unexpected.texts)),
        {**before.fillers, **fillers},
        before.sharding if sharding is None else sharding,
        codes,
        merged,
    )


def planned(
    stored: Checkpoint,
    like: Any,
    rules: Rules,
    request: PlanRequest,
    layouts: Layouts | None = None,
    adapters: Sequence[OpenAdapter] = (),
) -> tuple[Checkpoint, Plan, Any]:
    """The checkpoint with the keys to plan, the plan for it, and the model taken apart.

    A `Plan` as rules is proven again if keys, leaves or request have changed.
    """
    if not stored.specs.has_codes and not adapters:
        made, model = _planned(stored, like, rules, request, layouts)
        return stored, _told(stored, stored, made), model
    from bridge.api.quantized import check_codes, meant  # most checkpoints are plain
    from bridge.api.refused import plannable, without_refused

    ckpt, meaning = meant(stored, request)
    merging = None
    if adapters:
        from bridge.api.adapters import merged  # few loads have any

        ckpt, merging = merged(ckpt, adapters)
    ckpt = plannable(ckpt)
    made, model = _planned(ckpt, like, rules, request, layouts)
    check_codes(stored, made)
    made = without_refused(ckpt, made if meaning is None else meaning.told(made))
    return ckpt, _told(stored, ckpt, made if merging is None else merging.told(made)), model


def _told(stored: Checkpoint, ckpt: Checkpoint, made: Plan) -> Plan:
    """The plan, with facts that only the files tell, and the places of the keys in them."""
    if made.problems.unexpected:
        from bridge.api.ties import tell_ties  # most plans have none

        tell_ties(ckpt.specs, made)
    if made.problems:
        from bridge.api.nature import tell_nature  # most plans have no problems

        tell_nature(stored, made)
    return made


def _planned(
    ckpt: Checkpoint, like: Any, rules: Rules, request: PlanRequest, layouts: Layouts | None
) -> tuple[Plan, Any]:
    from bridge.api.read import is_converted  # these import JAX
    from bridge.model.template import take_apart
    from bridge.place.work import canonical

    if like is None and layouts:
        raise PlanError(
            "layouts", "are for the layers of a model, but like=None has none", "Give a model, or rules with axes"
        )
    model = None if like is None else take_apart(like, layouts)
    template = None if model is None else model.template
    converted = is_converted(ckpt)
    if converted and template is not None:
        # Its keys are leaf names and its tensors leaves: no layout has a say any more.
        template = Template(template.leaves, kind=template.kind)
    if isinstance(rules, Plan):
        if rules.holds_for(ckpt.specs, template, request, canonical):
            return replace(rules, source=ckpt.source, specs=ckpt.specs, request=request), model
        request = request._replace(rules=rules.rules)
    if converted and request.rules:
        from bridge.api.own_rules import without_own_rules  # rules for a converted checkpoint are rare

        request = without_own_rules(ckpt, request)
    return make_plan(ckpt.specs, template, request, source=ckpt.source, canonical=canonical), model
