"""What a check says of a port with a planted mistake, and whether its rules repair it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

import bridge
from bridge.checking.counterparts import counterparts
from bridge.checking.recording import Recording
from bridge.checking.whole_events import AlignedCalls
from bridge.checking.whole_run import judge
from bridge.checking.whole_try import try_run
from tests.checking.ports import Mistake, Port, inner, like_of


@dataclass(frozen=True)
class Verdict:
    """What a check said of a mistake: whether it was seen, the layer named first, whether its rules repair it."""

    seen: bool
    named: bool
    repaired: bool | None
    text: str


def verdict(port: Port, mistake: Mistake) -> Verdict:
    """Check a wrong port; and, where rules are printed, the port by them."""
    like = mistake.changed(like_of(port, mistake))
    with mistake.code():
        model, plan = port.loaded(mistake.rules, like)
        check = port.check(model, plan)
        first = check.first
        if first is None:
            return Verdict(False, False, None, str(check))
        named = inner(first.name) in mistake.names
        repaired = None
        if mistake.by_rule:
            texts = [layer.rule for layer in check.layers if layer.status == "departs" and layer.rule is not None]
            printed = list(dict.fromkeys(line for text in texts for line in text.splitlines()))
            repaired = first.rule is not None and _repairs(port, mistake, like, printed)
        return Verdict(True, named, repaired, str(check))


def moves(port: Port, mistake: Mistake) -> bool:
    """Whether a mistake moves the output further than a run that is right may be off there."""
    model, plan = port.loaded(port.rules)
    right = _last(port, model, plan)
    with mistake.code():
        model, plan = port.loaded(mistake.rules, mistake.changed(like_of(port, mistake)))
        wrong = _last(port, model, plan)
    assert wrong.event.error is not None
    return wrong.event.error > right.limit


def _last(port: Port, model: Any, plan: bridge.Plan) -> Any:
    recording = Recording.read(port.folder / "run.safetensors")
    pairs = counterparts(recording, model, plan)
    beside, trace = AlignedCalls(recording, pairs), try_run(recording, pairs, model, port.trace)
    assert not isinstance(trace, str)
    return [one for one in judge(beside, beside.events(trace)).events if one.event.error is not None][-1]


def _repairs(port: Port, mistake: Mistake, like: Any, printed: Sequence[str]) -> bool:
    """Whether the rules that are printed, in the place of those of the same leaves, make the port right."""
    by_leaf: dict[str, list[str]] = {}
    for text in printed:
        by_leaf.setdefault(str(bridge.Rule(text).leaf.name), []).append(text)
    leaves = {text: bridge.Rule(text).leaf for text in mistake.rules}
    rules = [made for text, leaf in leaves.items() for made in by_leaf.get(str(leaf.name) if leaf else "", [text])]
    try:
        model, plan = port.loaded(dict.fromkeys(rules), like)
    except bridge.BridgeError:
        return False
    if mistake.rules != port.rules:  # the rules were wrong, and are right: so are all values
        right, _ = port.loaded(port.rules)
        pairs = zip(jax.tree.leaves(model), jax.tree.leaves(right), strict=True)
        return all(np.array_equal(mine, theirs) for mine, theirs in pairs)
    return port.check(model, plan).first is None
