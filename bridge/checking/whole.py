"""The run as a whole, beside the layers alone: only it shows a wrong name, which a layer alone agrees with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import equinox as eqx
import jax.tree_util as jtu
import numpy as np

from bridge._text import quote
from bridge.checking.counterparts import Address, Counterparts, counterparts
from bridge.checking.kept import Kept, tensors
from bridge.checking.recording import Recording
from bridge.checking.report import GAVE
from bridge.checking.whole_events import IN, OUT, AlignedCalls
from bridge.checking.whole_run import Judged, Judgement, judge
from bridge.checking.whole_trials import Repair, Trials
from bridge.checking.whole_try import runs
from bridge.planning.plan import Plan
from bridge.tracing.trace import Trace

_WAYS = 3
"""Ways to call a model, of those that the shapes allow, that are run."""
_ROUNDS = 6
"""Mistakes that are repaired one after the other."""


@dataclass(frozen=True, slots=True)
class InRun:
    """Why a layer departs in the run, and the rule that makes it agree."""

    reason: str
    rule: str | None = None


@dataclass(frozen=True, slots=True)
class WholeRun:
    """What became of the run.

    - `text`: in words, after "the whole run". `compared`: whether it was.
    - `departed`: layers whose own inputs agree, and whose output does not.
    - `agrees`, `inputs_agree`: layers whose output agrees, and those whose input does.
    - `order`: layers in the order in which the model runs them.
    """

    text: str
    compared: bool = False
    departed: Mapping[Address, InRun] = field(default_factory=dict[Address, InRun])
    agrees: frozenset[Address] = frozenset()
    inputs_agree: frozenset[Address] = frozenset()
    order: tuple[Address, ...] = ()


def run_whole(recording: Recording, pairs: Counterparts, model: Any, plan: Plan, trace: Any) -> WholeRun:
    """Compare a traced run with the recording. `trace` may be a function that runs the model on the recorded input;
    without it the model is called as models mostly are, if it can be.
    """
    ran = _ran(recording, pairs, model, trace)
    if isinstance(ran, str):
        return WholeRun(ran)
    traced, judged = ran
    if not judged.compared:
        return WholeRun(
            f"was not compared: {_no_number(recording) or 'the trace and the recording have no outputs of one shape'}"
        )
    inside = judged.addresses(OUT), judged.addresses(IN), judged.order
    if judged.first is None:
        compared = [one for one in judged.events if one.agrees is not None]
        text = f"agrees in {len(compared)} inputs and outputs"
        if not judged.gave:
            text += f"; {GAVE}: {_no_number(recording) or _shapes(recording, traced)}"
        return WholeRun(text, judged.gave, {}, *inside)
    departed: dict[Address, InRun] = {}
    for _ in range(_ROUNDS):
        if judged.first is None:
            break
        trials = Trials(recording, pairs, model, plan, traced, judged)
        repair = trials.find(judged.first)
        at, found = _diagnosed(judged.first, trials, repair)
        departed.setdefault(at, found)
        if repair is None:
            break
        # What else is wrong shows once this is right: the same mistake in another stack, for one.
        model, plan, traced = repair.model, repair.plan, traced.again(repair.model)
        pairs = counterparts(recording, model, plan)
        beside = AlignedCalls(recording, pairs)
        judged = judge(beside, beside.events(traced))
    return WholeRun(
        f"departs at {_named(next(iter(departed)))}{_not_taken(recording, traced)}", True, departed, *inside
    )


def _ran(recording: Recording, pairs: Counterparts, model: Any, trace: Any) -> tuple[Trace, Judgement] | str:
    """The run, and how it compares; or why there is none. Shapes may not tell examples from time: of the ways in which
    the model can be called the one that agrees is the right one.
    """
    beside = AlignedCalls(recording, pairs)
    first: tuple[Trace, Judgement] | None = None
    for traced in islice([trace] if isinstance(trace, Trace) else runs(recording, pairs, model, trace), _WAYS):
        if isinstance(traced, str):
            return first or traced
        judged = judge(beside, beside.events(traced))
        first = first or (traced, judged)
        if judged.first is None and judged.compared:
            return traced, judged
    assert first is not None
    return first


def _no_number(recording: Recording) -> str:
    """That PyTorch's output says nothing, if it has values and none of them is a number."""
    held = [kept.matrix for call in recording.calls_of("")[:1] for kept in tensors(call.output)]
    floats = [values for values in held if values.size and values.dtype.kind not in "iub"]
    if floats and not any(np.isfinite(values).any() for values in floats):
        return "PyTorch's model gave no finite number"
    return ""


def _shapes(recording: Recording, trace: Trace) -> str:
    """What the model gives, and what PyTorch's does."""
    own = [list(leaf.shape) for leaf in jtu.tree_leaves(trace.result) if eqx.is_array(leaf)]
    theirs = [list(kept.shape) for call in recording.calls_of("")[:1] for kept in tensors(call.output)]
    return f"it is {_listed(own)}, PyTorch's {_listed(theirs)}"


def _listed(shapes: Sequence[list[int]]) -> str:
    return " and ".join(map(str, shapes[:4])) + (" and more" if len(shapes) > 4 else "") or "no array"


def _not_taken(recording: Recording, trace: Trace) -> str:
    """What PyTorch's model took, and the model did not."""
    held = [np.asarray(leaf) for leaf in jtu.tree_leaves(trace.args) if eqx.is_array(leaf)]
    found: list[str] = []
    for call in recording.calls_of("")[:1]:
        for name, kept in call.kwargs.items():
            if isinstance(kept, int | float | str) and not isinstance(kept, bool):
                found.append(f"{quote(name)} ({kept})")  # a run takes arrays alone
            if not isinstance(kept, Kept) or kept.values is None or not kept.whole:
                continue
            values = kept.values.reshape(kept.shape)
            if (values != 1).any() and not any(
                leaf.shape == values.shape and np.array_equal(leaf, values) for leaf in held
            ):
                found.append(quote(name))
    return f"; PyTorch's took {' and '.join(found)} too, which it was not called with" if found else ""


def _diagnosed(first: Judged, trials: Trials, repair: Repair | None) -> tuple[Address, InRun]:
    """The layer to look at, and what is wrong with it, as far as trials say."""
    event = first.event
    off = f"off by {event.error:.2g} in the run, where rounding explains {first.limit:.2g}"
    side = "its output" if event.side == OUT else "what it is called with"
    if event.at == ("", ()) and event.side == IN:
        return event.at, InRun(f"it was run on something else than was recorded: {off}")
    if repair is not None:
        where = f"{side} is {off}" if repair.at == event.at else f"{_named(event.at)}: {side} is {off}"
        more = "rules" if len(repair.change.shown) > 1 else "rule"
        rules = "\n".join(repair.change.shown)
        return repair.at, InRun(f"{where};\n{repair.change.what} it agrees. The {more}:", rules)
    if event.side == IN:
        at = _parent(event.at, trials)
        return at, InRun(f"the parent's own code: what it gives to {_named(event.at)} is {off}, and all before agrees")
    if event.at in trials.pairs.layers:
        masks = _masks(trials, event.at)
        advice = f"PyTorch's was called with {masks}, look at the model's mask" if masks else "look at its own code"
        return event.at, InRun(f"its input agrees, and its output is {off}: {advice}")
    return event.at, InRun(f"the parent's own code: what it calls agrees, and its output is {off}")


def _masks(trials: Trials, at: Address) -> str:
    """The masks that a layer's counterpart was called with."""
    module = trials.pairs.layers[at].module
    calls = trials.recording.calls_of(module)[:1] if module else ()
    names = [name for call in calls for name, kept in call.kwargs.items() if "mask" in name and isinstance(kept, Kept)]
    return " and ".join(map(quote, names))


def _parent(at: Address, trials: Trials) -> Address:
    """The module that calls another."""
    names = {call.name for call in trials.trace.calls}
    name, index = at
    while name:
        name = name.rpartition(".")[0]
        if name in names:
            break
    order = [one for one in trials.judgement.order if one[0] == name]
    return next((one for one in order if one[1] == index[: len(one[1])]), (name, ()))


def _named(at: Address) -> str:
    name, index = at
    return f"{quote(name or 'the model')}{list(index) if index else ''}"
