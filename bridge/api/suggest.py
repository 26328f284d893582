"""`suggest`: proposes a first set of rules for a model, from headers alone. A draft for a person to check."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bridge._errors import PlanError
from bridge._text import template as template_of
from bridge.api.load import open_keywords, opened
from bridge.api.planned import also_opened, planned, request_of
from bridge.mapping.arrays import ArraySpec
from bridge.mapping.template import Spec, Template
from bridge.planning.plan import Plan, PlanRequest, make_plan
from bridge.planning.same import moves_alike
from bridge.proposing import Proposal, propose
from bridge.proposing.compress import compressed, key_side
from bridge.proposing.toml import reason, toml_text
from bridge.rules.rule import Rule, rules_of
from bridge.rules.syntax import escaped

if TYPE_CHECKING:
    from bridge.api.arguments import Adapters, AllowMissing, Dtype, Layouts, Rules, Source
    from bridge.source.checkpoint import Checkpoint

Guesses = Mapping[str, Sequence[str]]
"""Rules that are guesses, by why they are."""


class Suggestion:
    """Proposed rules. `print(suggestion)` shows them as TOML, with the guesses as comments.

    - `rules`: rules for `plan` and `load`: the given rules, the certain ones, and the best guess for every other leaf.
    - `certain`: the same rules without the guesses.
    - `doubtful`: for each leaf whose rule is a guess, the reason and the other keys that fit.
    - `unmatched`, `left`: leaves without a proposed rule, keys without one.

    ```python
    proposed = bridge.suggest("model.safetensors", like)
    assert not proposed.doubtful and not proposed.unmatched
    assert bridge.plan("model.safetensors", like, proposed.certain).ok
    ```
    """

    def __init__(self, certain: Sequence[str], held: Sequence[str], guesses: Guesses, proposal: Proposal) -> None:
        self._certain, self._held, self._guesses, self._proposal = certain, held, guesses, proposal

    @property
    def rules(self) -> list[Rule]:
        """Rules for `bridge.plan`: the certain ones first, then the guesses."""
        return [*self._sure(), *(Rule(rule) for rules in self._guesses.values() for rule in rules)]

    @property
    def certain(self) -> list[Rule]:
        """The rules that are no guesses. They also drop keys that a doubtful leaf would take by its own name."""
        return [*self._sure(), *map(Rule, self._held)]

    def _sure(self) -> list[Rule]:
        return [*map(Rule, self._certain), *(Rule(drop.rule) for drop in self._proposal.drops)]

    @property
    def doubtful(self) -> dict[str, str]:
        """For each leaf whose rule is a guess, by full name, the reason and the other keys that fit."""
        return {leaf: reason(pair) for pair in self._proposal.pairs if pair.doubt for leaf in pair.leaves}

    @property
    def unmatched(self) -> tuple[str, ...]:
        """Leaves without a proposed rule."""
        return self._proposal.unmatched

    @property
    def left(self) -> tuple[str, ...]:
        """Keys without a proposed rule."""
        return self._proposal.left

    def __str__(self) -> str:
        return toml_text(self._certain, self._held, self._guesses, self._proposal)


def suggest(
    source: Source,
    like: Any,
    rules: Rules = None,
    *,
    dtype: Dtype | Mapping[str, Dtype] | None = None,
    allow_missing: AllowMissing = (),
    allow_unexpected: Sequence[str] | str = (),
    quantized: str | Mapping[str, Any] | None = None,
    adapters: Adapters = (),
    layouts: Layouts | None = None,
    revision: str | None = None,
    subfolder: str | None = None,
    variant: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    verify: bool = False,
    root: str | None = None,
    modules: bool = False,
) -> Suggestion:
    """Propose rules for a checkpoint and a model, from names, structure, counts and shapes. Reads no weights.

    The proposal is a draft for a person to check: rules that are not certain are marked, with the reason. No other
    function of `bridge` uses it.

    **Arguments:**

    - `source`, and `revision`, `subfolder`, `variant`, `token`, `cache_dir`, `local_files_only`, `verify`, `root`,
        `modules`: as for `bridge.open`.
    - `like`: the model to fill, as for `bridge.plan`; not `None`.
    - `rules`: rules that you know already. Their keys and leaves get no other proposal.
    - `dtype`, `allow_missing`, `allow_unexpected`, `quantized`, `adapters`, `layouts`: as for `bridge.plan`. Leaves of
        `allow_missing` and keys of `allow_unexpected` get no proposal.

    **Returns:** a `Suggestion` with `.rules`, `.certain`, `.doubtful`, `.unmatched` and `.left`; its text is TOML.

    **Raises:** the errors of `bridge.plan`; `PlanError` if `like` is `None`.

    ```python
    proposed = bridge.suggest("model.safetensors", like)
    print(proposed)
    plan = bridge.plan("model.safetensors", like, proposed.rules)
    ```
    """
    options = open_keywords(revision, subfolder, variant, token, cache_dir, local_files_only, verify, root, modules)
    if like is None:
        raise PlanError("like", "is None, but suggest proposes rules for a model", "Give a model")
    with opened(source, **options) as stored, also_opened(adapters, options) as own:
        request = request_of(rules, dtype, allow_missing, allow_unexpected, None, quantized, own)
        ckpt, made, model = planned(stored, like, rules, request, layouts, own)
        return _suggested(ckpt, made, model.template, like)


def _suggested(ckpt: Checkpoint, made: Plan, template: Template, like: Any) -> Suggestion:
    """What is proposed for keys and leaves that the given rules do not speak of."""
    from bridge.model.kinds import kinds_of  # it imports JAX

    request, given = made.request, [str(rule) for rule in made.request.rules]
    keys, leaves = _free(ckpt, template, request)
    proposal = propose(keys, template._replace(leaves=leaves), kinds_of(like))
    drops = [drop.rule for drop in proposal.drops]
    certain = [pair.rule for pair in proposal.pairs if not pair.doubt]
    guesses: dict[str, list[str]] = {}
    for pair in sorted(proposal.pairs, key=reason):
        if pair.doubt:
            guesses.setdefault(reason(pair), []).append(pair.rule)

    def plan_of(texts: Sequence[str]) -> Plan:
        asked = request._replace(rules=rules_of([*given, *texts]))
        return make_plan(ckpt.specs, template, asked, source=ckpt.source)

    # Few rules must say no more than many: neither alone, nor with the guesses behind them.
    alone = plan_of([*certain, *drops])
    whole = plan_of([*certain, *drops, *_all(guesses)]) if guesses else alone
    held = _held(alone, proposal)
    if held:
        alone = plan_of([*certain, *drops, *held])

    def same(rules: Sequence[str]) -> bool:
        if not moves_alike(plan_of([*rules, *drops, *held]), alone):
            return False
        return not guesses or moves_alike(plan_of([*rules, *drops, *_all(guesses)]), whole)

    rest = [*map(key_side, drops), *_shown(proposal.left)]
    few = compressed(certain, same, [*map(key_side, _all(guesses)), *rest])
    for why, rules in guesses.items():
        others = [rule for each in guesses.values() if each is not rules for rule in each]
        guesses[why] = compressed(
            rules,
            lambda tried, why=why: moves_alike(plan_of([*few, *drops, *_all({**guesses, why: [*tried]})]), whole),
            [*map(key_side, (*certain, *others)), *rest],
            all_said=True,
        )
    return Suggestion([*given, *few], held, guesses, proposal)


def _all(guesses: Guesses) -> list[str]:
    return [rule for rules in guesses.values() for rule in rules]


def _held(alone: Plan, proposal: Proposal) -> list[str]:
    """Rules that drop keys which a leaf would take by its own name, though it is in doubt what it should take."""
    doubtful = {leaf for pair in proposal.pairs if pair.doubt for leaf in pair.leaves}
    taken = {
        key: None
        for block in alone.blocks
        for row, leaf in enumerate(block.leaves if not block.tie else ())
        if leaf in doubtful
        for key, _ in block.maps(row)
    }
    found: list[str] = []
    for pair in proposal.pairs if taken else ():
        if pair.doubt and not taken.keys().isdisjoint(pair.keys):
            found.append(f"{key_side(pair.rule)} -> _")
            taken = {key: None for key in taken if key not in set(pair.keys)}
    return [*found, *(f"{escaped(key)} -> _" for key in taken)]


def _shown(names: Sequence[str]) -> list[str]:
    """Names by family, their numbers as `{}`."""
    return list(dict.fromkeys(template_of(name)[0] for name in names))


def _free(
    ckpt: Checkpoint, template: Template, request: PlanRequest
) -> tuple[Mapping[str, ArraySpec], Mapping[str, Spec]]:
    """Keys and leaves that the given rules do not speak of, and that want a partner."""
    free, filled = set(ckpt.specs), set[str]()
    if request.rules:
        # Behind them a rule that drops all that they leave, so that no name is matched but by them.
        asked = request._replace(rules=(*request.rules, Rule("** -> _")))
        spoken = make_plan(ckpt.specs, template, asked, source=ckpt.source)
        free = {key for key, rule in spoken.dropped.items() if rule == "** -> _"}
        filled = {leaf for block in spoken.blocks for leaf in block.leaves}
    keys = {key: spec for key, spec in ckpt.specs.items() if key in free and key not in request.allow_unexpected}
    leaves = {
        name: spec for name, spec in template.leaves.items() if name not in filled and name not in request.allow_missing
    }
    return keys, leaves
