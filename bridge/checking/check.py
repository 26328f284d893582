"""`check`: compares a port with a recorded run of the PyTorch model."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from itertools import islice
from typing import Any

import jax
import numpy as np

from bridge._errors import CheckpointError, PlanError
from bridge._text import plural, quote
from bridge.checking.alone import Alone, Outcome
from bridge.checking.counterparts import Address, Counterpart, Counterparts, counterparts
from bridge.checking.kept import tensors
from bridge.checking.layers import at_index
from bridge.checking.measure import Compared
from bridge.checking.mistakes import Mistakes, epsilon
from bridge.checking.products import NO_TOKEN
from bridge.checking.recording import Recording
from bridge.checking.report import AGREES, DEPARTS, NOT_COMPARED, Check, Layer
from bridge.checking.whole import WholeRun, run_whole
from bridge.checking.whole_calls import in_inference, is_pair
from bridge.mapping.block import filled
from bridge.mapping.pattern import NamePatterns
from bridge.model.template import modules_of, take_apart
from bridge.planning.plan import Plan
from bridge.tracing.trace import Trace

_FEW = 2
"""Matrices with other values, of a small model, that are told one by one."""


def check(
    recording: str | os.PathLike[str] | Recording,
    model: Any,
    plan: Plan,
    *,
    call: Mapping[str, Callable[..., Any]] | None = None,
    trace: Trace | Callable[..., Any] | None = None,
    skip: Sequence[str] | str = (),
) -> Check:
    """Compare a loaded model with a recorded run of the PyTorch model: each layer alone, and the run as a whole.

    **Arguments:**

    - `recording`: the file that the recorder wrote (`eqx-bridge recorder`).
    - `model`: the loaded model, or the pair `(model, state)`.
    - `plan`: the plan of the load. It says which PyTorch module each layer stands for.
    - `call`: a mapping from names of your own modules to functions. A function gets the module (one module, if it is
        stacked) and the recorded inputs of the PyTorch module, batch axis included. It returns the output.
    - `trace`: how to run the model if `jax.vmap(model)(input)` does not: a function of the model and of the recorded
        inputs, batch axis included, with the names of PyTorch's keyword arguments; or the result of `bridge.trace` on
        the recorded input.
    - `skip`: patterns of layers that need not be compared.

    **Returns:** a `Check`. `print(check)` names the first layer that departs and, if one is found, the rule that makes
    it agree.

    **Raises:** `CheckpointError` for a file that is no recording, or is one of other weights; `PlanError` if plan and
    model do not fit, and for names in `call` and `skip` that no layer has.

    ```python
    plan = bridge.plan("model.safetensors", like)
    model = bridge.load("model.safetensors", like, plan)
    check = bridge.check("run.safetensors", model, plan)
    print(check)
    ```
    """
    found = recording if isinstance(recording, Recording) else Recording.read(recording)
    _check_plan(plan, model)
    if not (trace is None or isinstance(trace, Trace) or callable(trace)):
        advice = "Give the result of bridge.trace(fn, model, *args), or the function"
        raise PlanError("trace=", f"is of type {type(trace).__name__}, expected a trace or a function", advice)
    model = in_inference(model)
    pairs = counterparts(found, model, plan)
    _check_weights(pairs, found)
    calls, patterns = dict(call or {}), NamePatterns.of(skip)
    _check_names(calls, patterns, pairs)
    return _Checker(found, model, plan, pairs, calls, patterns, trace).check()


def _check_plan(plan: Any, model: Any) -> None:
    """**Raises:** `PlanError` for what is no plan of this model."""
    if not isinstance(plan, Plan):
        raise PlanError(
            "plan",
            f"is of type {type(plan).__name__}, expected a Plan",
            "Give the result of bridge.plan(source, model, rules)",
        )
    plan.check()
    names = {name for name, _ in modules_of(model)}
    if not names:
        raise PlanError(
            "the model to check",
            f"is of type {type(model).__name__}, and has no modules",
            "Give the loaded Equinox model",
        )
    leaves = take_apart(model).arrays
    for name in filled(plan.blocks):
        shape, wanted = leaves[name].value.shape if name in leaves else None, plan.leaves[name].shape
        if shape != wanted:
            problem = (
                f"is not in {type(model).__name__}" if shape is None else f"has shape {shape}, the plan has {wanted}"
            )
            raise PlanError(f"leaf {quote(name)}", problem, "Give the plan that the model was loaded by")
        if isinstance(leaves[name].value, jax.ShapeDtypeStruct):
            problem = "is abstract, but a check computes with its values"
            raise PlanError(f"leaf {quote(name)}", problem, "Give the model that bridge.load returned")


def _check_weights(pairs: Counterparts, recording: Recording) -> None:
    """**Raises:** `CheckpointError` where the recorded model has none of the plan's matrices."""
    if len(pairs.strange) > _FEW and not pairs.known:
        raise CheckpointError(
            quote(recording.source),
            f"was recorded with other weights: none of the plan's {plural(len(pairs.strange), 'matrix')} is in "
            f"the recorded {recording.kind}",
            "Record the model whose checkpoint was loaded",
        )


def _check_names(calls: Mapping[str, Any], patterns: NamePatterns, pairs: Counterparts) -> None:
    """**Raises:** `PlanError` for names that no layer has."""
    for name in calls:
        if name not in pairs.modules:
            raise PlanError(
                "call=",
                f"names {quote(name)}, which is not a module of the model",
                "Check without call= to see the names of the modules",
            )
    for text, pattern in zip(patterns.texts, patterns.patterns, strict=True):
        if not any(pattern.find(name) is not None for name, _ in (*pairs.layers, *pairs.composites)):
            raise PlanError(
                "skip=",
                f"names {quote(text)}, which is not a layer of the model",
                "Check without skip= to see the names of the layers",
            )


class _Checker:
    """One check: layers alone, the whole run, and what comes of both."""

    def __init__(
        self,
        recording: Recording,
        model: Any,
        plan: Plan,
        pairs: Counterparts,
        calls: Mapping[str, Callable[..., Any]],
        skip: NamePatterns,
        trace: Any,
    ) -> None:
        self.recording, self.model, self.plan, self.pairs = recording, model, plan, pairs
        self.calls, self.skip, self.trace = calls, skip, trace
        self.alone = Alone(recording, pairs, model[1] if is_pair(model) else None)

    def check(self) -> Check:
        """Compare everything."""
        asked = dict(self.pairs.layers)
        asked |= {at: one for at, one in self.pairs.composites.items() if at[0] in self.calls}
        outcomes = {at: self.outcome(at, one) for at, one in asked.items()}
        whole = run_whole(self.recording, self.pairs, self.model, self.plan, self.trace)
        # What departs in the run may be a module whose own code is wrong, which holds no arrays itself.
        asked |= {at: self.pairs.composites.get(at) or Counterpart(*at, ()) for at in whole.departed if at not in asked}
        layers = [self.layer(one, outcomes.get(at), whole) for at, one in asked.items()]
        layers.sort(key=lambda layer: self.began(asked[layer.name, layer.index]))
        departs = [layer for layer in layers if layer.status == DEPARTS]
        first = next((layer for at in whole.order for layer in departs if (layer.name, layer.index) == at), None)
        first = first or (departs[0] if departs else None)
        left = self.left(layers, whole)
        compared = {(layer.name, layer.index) for layer in layers if layer.status != NOT_COMPARED}
        complete = all((layer.name, layer.index) in compared | left for layer in layers)
        return Check(
            model=self.plan.model,
            source=self.recording.source,
            kind=self.recording.kind,
            layers=tuple(layers),
            ok=not departs and complete and bool(compared),
            covered=self.covered(compared),
            first=first,
            whole=whole.text,
            ran=whole.compared,
            skipped=self.recording.skipped,
            left=frozenset(left),
        )

    def outcome(self, at: Address, one: Counterpart) -> Outcome:
        """One layer alone."""
        fn = self.calls.get(at[0])
        found = self.alone.compare(at_index(self.pairs.modules[at[0]], at[1]), one, fn)
        if (
            isinstance(found, Compared)
            and found.want.size
            and not np.isfinite(np.asarray(found.want, np.float64)).any()
        ):
            return "PyTorch's gave no finite number"
        return found

    def layer(self, one: Counterpart, outcome: Outcome | None, whole: WholeRun) -> Layer:
        """What became of a layer, alone and in the run."""
        at = one.name, one.index
        departed, elsewhere = whole.departed.get(at), self.ends_elsewhere(one, whole)
        ulps = outcome.ulps if isinstance(outcome, Compared) else None
        if elsewhere and (departed is not None or (isinstance(outcome, Compared) and not outcome.agrees)):
            reason = "it ends elsewhere in PyTorch: what comes after it takes in both the same"
            return Layer(*at, one.module, NOT_COMPARED, ulps, reason)
        if isinstance(outcome, Compared) and not outcome.agrees:
            found = Mistakes(self.alone, self.plan, self.pairs, in_run=whole.compared).find(one, outcome)
            if found.rule is None and departed is not None and departed.rule is not None:
                return Layer(*at, one.module, DEPARTS, ulps, departed.reason, departed.rule)
            return Layer(*at, one.module, DEPARTS, ulps, found.reason, found.rule)
        if departed is not None:
            return Layer(*at, one.module, DEPARTS, None, departed.reason, departed.rule)
        if isinstance(outcome, Compared) and at in self.pairs.layers:
            # In bfloat16 no output shows a wrong epsilon; the recorded module says what it was.
            reason = epsilon(one, self.pairs.modules[one.name], self.alone)
            if reason is not None or one.differs:
                return Layer(*at, one.module, DEPARTS, ulps, reason or one.differs)
        if not isinstance(outcome, Compared) and one.name in self.calls:
            return Layer(*at, one.module, NOT_COMPARED, None, outcome or one.reason)  # its function was not tried
        if isinstance(outcome, Compared) or at in whole.agrees:
            return Layer(*at, one.module, AGREES, ulps)
        return Layer(*at, one.module, NOT_COMPARED, None, outcome or one.reason)

    def ends_elsewhere(self, one: Counterpart, whole: WholeRun) -> bool:
        """Whether a module that takes what one of PyTorch's gives takes the same in the model's run. The model itself
        ends where PyTorch's does, though it may give what a part of it took.
        """
        if not one.name:
            return False
        given = {kept.number for call in self.recording.calls_of(one.module or "") for kept in tensors(call.output)}
        found = {at for number in given for at in self.takers.get(number, ())}
        found = {at for at in found if self.known[at].module != one.module and one.name != ""}
        return not found.isdisjoint(whole.inputs_agree)

    @cached_property
    def takers(self) -> Mapping[int, Sequence[Address]]:
        """Of each recorded tensor the modules whose counterparts take it, before anything else."""
        found: dict[int, list[Address]] = {}
        for at, one in self.known.items():
            for call in self.recording.calls_of(one.module) if one.module is not None else ():
                for kept in islice(tensors((call.args, dict(call.kwargs))), 1):
                    found.setdefault(kept.number, []).append(at)
        return found

    @cached_property
    def known(self) -> Mapping[Address, Counterpart]:
        """Layers and the modules that hold them."""
        return {**self.pairs.composites, **self.pairs.layers}

    def left(self, layers: Sequence[Layer], whole: WholeRun) -> set[Address]:
        """The layers that nobody has to compare."""
        reached = {layer.name for layer in layers if layer.status == AGREES}
        found: set[Address] = set()
        for layer in layers:
            one = self.pairs.layers.get((layer.name, layer.index))
            if layer.name in self.skip:
                found.add((layer.name, layer.index))
            elif layer.status != NOT_COMPARED or one is None:
                continue
            elif (layer.reason == NO_TOKEN and layer.name in reached) or self.ends_elsewhere(one, whole):
                found.add((layer.name, layer.index))
        return found

    def began(self, one: Counterpart) -> tuple[int, str, tuple[int, ...]]:
        """When PyTorch began with a layer's counterpart; at the end, if never."""
        ticks = [call.start for part in one.parts for call in self.recording.calls_of(part.module)[:1]]
        params = {part.place.param for part in one.parts}
        ticks += [op.at for op in self.recording.ops if op.param in params]
        return min(ticks, default=1 << 62), one.name, one.index

    def covered(self, compared: set[Address]) -> float:
        """The share of the elements of all layers that were compared."""
        counts = {
            at: sum(piece.index_map.count for held in one.pieces.values() for piece in held if not piece.term)
            for at, one in self.pairs.layers.items()
        }
        total = sum(counts.values())
        return sum(count for at, count in counts.items() if at in compared) / total if total else 0.0
