"""Running a model on the input that was recorded, where it is called as models mostly are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.tree_util as jtu

from bridge._errors import BridgeError
from bridge.checking.counterparts import Counterparts
from bridge.checking.kept import tensors
from bridge.checking.recording import Recording
from bridge.checking.report import HOW
from bridge.checking.whole_align import Wanted, first_fit
from bridge.checking.whole_calls import Way, given_by, ways
from bridge.checking.whole_events import IN, OUT, AlignedCalls
from bridge.tracing.interpret import Mark
from bridge.tracing.mark import Slot, Token
from bridge.tracing.trace import Program, Trace

_FAILED = (TypeError, ValueError, IndexError, KeyError, AttributeError, AssertionError, RuntimeError, BridgeError)
"""What a model raises that is called otherwise than it wants to be."""


def try_run(recording: Recording, pairs: Counterparts, model: Any, fn: Callable[..., Any] | None = None) -> Trace | str:
    """The first of `runs`, or why there is none, after "the whole run"."""
    return next(runs(recording, pairs, model, fn))


def runs(
    recording: Recording, pairs: Counterparts, model: Any, fn: Callable[..., Any] | None = None
) -> Iterator[Trace | str]:
    """The model traced on the recorded input, in each way that gives what PyTorch's gave, as far as shapes tell; or why
    that can not be done.

    **Arguments:**

    - `fn`: how the model is called, of the model and of the recorded input, by name where PyTorch took it so. Without
      it the ways in which models mostly are called are tried.
    """
    calls = recording.calls_of("")
    if not calls:
        yield f"was not compared: the recording has no call of the model itself: {_HELP}"
        return
    args, kwargs = calls[0].args, calls[0].kwargs
    if any(kept.values is None or not kept.whole for kept in tensors((args, dict(kwargs)))):
        yield f"was not compared: the recording does not have the model's input as a whole: {_HELP}"
        return
    select = Selector(AlignedCalls(recording, pairs))
    if fn is not None:
        yield _traced(*given_by(fn, model, args, kwargs), model, select)
        return
    wanted = [Wanted(kept, shared=False) for kept in tensors(calls[0].output)]
    second: Way | None = None
    why, found = "", False
    for way in ways(model, args, kwargs):
        try:
            out = eqx.filter_eval_shape(way[0], model, *way[1])
        except _FAILED as error:
            why = why or f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
            continue
        shapes = [leaf.shape for leaf in jtu.tree_leaves(out) if isinstance(leaf, jax.ShapeDtypeStruct)]
        if first_fit(wanted, shapes) is not None:
            found = True
            yield _traced(*way, model, select)
        second = second or way
    if second is not None and not found:
        yield _traced(*second, model, select)
    elif not found:
        raised = f", which raises {why[:200]}" if why else ""
        yield f"was not compared: the model is not called as jax.vmap(model)(input){raised}; {HOW}"


_HELP = "trace the model on the input that was recorded, with bridge.trace, and give what that returns"


def _traced(fn: Callable[..., Any], args: tuple[Any, ...], model: Any, select: Selector) -> Trace | str:
    try:
        with jax.default_matmul_precision("highest"):
            program = Program(fn, model, args, select)
        return Trace(program, model, program.run(model))
    except BridgeError as error:  # a loop of unknown length, or code for several devices
        return f"was not compared: {error}"


class Selector:
    """Keeps of each traced value the rows that were recorded, inside the program: a whole run takes no more memory."""

    def __init__(self, beside: AlignedCalls) -> None:
        self.wanted: dict[tuple[str, str], list[list[Wanted]]] = {}
        for (name, _), one in beside.known.items():
            for part in one.parts:
                for call in beside.recording.calls_of(part.module)[:1]:
                    for side, tree in ((IN, (call.args, dict(call.kwargs))), (OUT, call.output)):
                        held = [beside.wanted(one, part, side, kept) for kept in tensors(tree)]
                        self.wanted.setdefault((name, side), []).append(held)

    def __call__(self, mark: Mark, value: jax.Array) -> jax.Array:
        """What is kept of a value."""
        token = mark.call.token
        held = self.wanted.get((token.name, IN if mark.slot in _slots(token) else OUT))
        if token.name == "" or (held is not None and not _alike(held)) or not _is_inside(mark):
            return value
        if held is None:  # it is not compared; that it was called still says when
            return value.reshape(-1)[:0]
        fit = first_fit(held[0], [value.shape])
        kept = held[0][fit[1]].kept if fit is not None else None
        if fit is None or kept is None or len(kept.rows) == kept.height:
            return value
        turned = fit[2](value)
        return turned.reshape(-1, turned.shape[-1])[kept.rows]


def _slots(token: Token) -> set[int]:
    """The slots of a call's inputs."""
    leaves = jtu.tree_leaves(token.inputs, is_leaf=lambda node: isinstance(node, Slot))
    return {leaf.number for leaf in leaves if isinstance(leaf, Slot)}


def _alike(held: Sequence[Sequence[Wanted]]) -> bool:
    """Whether the same elements are wanted in each place of a stack."""
    return len({tuple(map(_form, one)) for one in held}) == 1


def _form(one: Wanted) -> Any:
    values = one.kept.values
    columns = [None if held is None else held.tobytes() for held in (one.own, one.theirs)]
    return one.kept.shape, one.kept.whole, None if values is None else values.shape, *columns


def _is_inside(mark: Mark) -> bool:
    """Whether the value stands in loops over the stack, and in nothing else that the module changes with."""
    loops = mark.order.count(None)
    return all(mark.axes[:loops]) and not any(mark.axes[loops:])
