"""Keys and leaves for the tests of proposals, and a judge: what a plan does with each element."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from bridge.mapping.template import Spec, Template
from bridge.model.kinds import kinds_of
from bridge.model.template import take_apart
from bridge.planning.plan import Plan, PlanRequest, make_plan
from bridge.proposing import Proposal, propose
from bridge.rules.rule import rules_of

Shapes = Mapping[str, tuple[int, ...]]


def specs(shapes: Shapes, dtype: str = "float32") -> dict[str, Spec]:
    """Arrays by name."""
    return {name: Spec(np.dtype(dtype), shape) for name, shape in shapes.items()}


def layers(count: int, prefix: str, shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """The same shapes in each of some layers: `prefix` has `{}` for the number."""
    return {prefix.format(n) + name: shape for n in range(count) for name, shape in shapes.items()}


def tree(shapes: Shapes) -> dict[str, Any]:
    """Nested dicts of shapes."""
    out: dict[str, Any] = {}
    for name, shape in shapes.items():
        node = out
        *above, last = name.split(".")
        for segment in above:
            node = node.setdefault(segment, {})
        node[last] = jax.ShapeDtypeStruct(shape, np.float32)
    return out


def proposed(keys: Shapes, like: Any) -> Proposal:
    """What is proposed for a model."""
    return propose(specs(keys), take_apart(like).template, kinds_of(like))


def of_shapes(keys: Shapes, leaves: Shapes) -> Proposal:
    """What is proposed for leaves of plain containers."""
    return propose(specs(keys), Template(specs(leaves)))


def certain(proposal: Proposal) -> dict[str, str]:
    """The rules that are certain, from key to leaf."""
    return dict(pair.rule.split(" -> ") for pair in proposal.pairs if not pair.doubt)


def guessed(proposal: Proposal) -> dict[str, str]:
    """The rules that are guesses."""
    return dict(pair.rule.split(" -> ") for pair in proposal.pairs if pair.doubt)


def plan(keys: Shapes, leaves: Shapes, rules: Sequence[str]) -> Plan:
    """The plan of rules."""
    return make_plan(specs(keys), Template(specs(leaves)), PlanRequest(rules_of(list(rules))), source="the test's")


def check(keys: Shapes, leaves: Shapes, rules: Sequence[str]) -> Proposal:
    """That what is proposed does the same as `rules`, guesses included; the proposal."""
    proposal = of_shapes(keys, leaves)
    got = plan(keys, leaves, [pair.rule for pair in proposal.pairs] + [drop.rule for drop in proposal.drops])
    wanted = plan(keys, leaves, rules)
    assert wanted.ok, str(wanted)
    assert got == wanted, "\n".join(pair.rule for pair in proposal.pairs)
    return proposal
