"""Running a model on the input that was recorded, where it is called as models mostly are."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np

from bridge._errors import BridgeError
from bridge.checking.counterparts import Counterparts
from bridge.checking.kept import Kept, tensors
from bridge.checking.recording import Recording
from bridge.checking.whole_align import Wanted, first_fit
from bridge.checking.whole_events import IN, OUT, AlignedCalls
from bridge.model.template import kind_of
from bridge.tracing.interpret import Mark
from bridge.tracing.mark import Slot, Token
from bridge.tracing.trace import Program, Trace

_FAILED = (TypeError, ValueError, IndexError, KeyError, AttributeError, AssertionError, RuntimeError, BridgeError)
"""What a model raises that is called otherwise than it wants to be."""
_PLAIN = "jax.vmap(model)(input)"


def try_run(recording: Recording, pairs: Counterparts, model: Any) -> Trace | str:
    """The model traced on the recorded input; or why that can not be done, after "the whole run"."""
    how = "give check(…, trace=bridge.trace(fn, model, *args)) for the input that was recorded"
    calls = recording.calls_of("")
    if not calls:
        return f"was not compared: the recording has no call of the model itself: {how}"
    given = [*calls[0].args, *calls[0].kwargs.values()]
    if any(kept.values is None or not kept.whole for kept in tensors(tuple(given))):
        return f"was not compared: the recording does not have the model's input as a whole: {how}"
    wanted = [Wanted(kept) for kept in tensors(calls[0].output)]
    second: tuple[Callable[..., Any], tuple[Any, ...]] | None = None
    for fn, args in _ways(model, calls[0].args, calls[0].kwargs):
        try:
            out = eqx.filter_eval_shape(fn, model, *args)
        except _FAILED:
            continue
        shapes = [leaf.shape for leaf in jtu.tree_leaves(out) if isinstance(leaf, jax.ShapeDtypeStruct)]
        if first_fit(wanted, shapes) is not None:
            return _traced(fn, model, args, Selector(AlignedCalls(recording, pairs)))
        second = second or (fn, args)
    if second is not None:
        return _traced(second[0], model, second[1], Selector(AlignedCalls(recording, pairs)))
    return f"was not compared: the model is not called as {_PLAIN}: {how}"


def _traced(fn: Callable[..., Any], model: Any, args: tuple[Any, ...], select: Selector) -> Trace:
    program = Program(fn, model, args, select)
    return Trace(program, model, program.run(model))


def _ways(model: Any, args: Sequence[Any], kwargs: Any) -> Iterator[tuple[Callable[..., Any], tuple[Any, ...]]]:
    """How the model may be called: mapped over examples and not; with its arguments by name, the first, or all."""
    state = isinstance(model, tuple) and len(model) == 2 and kind_of(type(model[1])) == "state"
    dtype = _float_of(model)
    named = {f"arg{n}": value for n, value in enumerate(args)} | dict(kwargs)
    arrays = {name: _array(value, dtype) for name, value in named.items() if isinstance(value, Kept)}
    values = tuple(arrays.values())
    by_name = _by_name(model[0] if state else model, arrays)
    chosen = list(dict.fromkeys([len(by_name), 1, len(values)]))
    for mapped in (True, False):
        for count in chosen:
            given = by_name if count == len(by_name) else values[:count]
            if given:
                yield (_with_state(mapped) if state else _alone(mapped)), given


def _alone(mapped: bool) -> Callable[..., Any]:
    return lambda model, *args: jax.vmap(model)(*args) if mapped else model(*args)


def _with_state(mapped: bool) -> Callable[..., Any]:
    def run(pair: Any, *args: Any) -> Any:
        model, state = pair
        if not mapped:
            return model(*args, state)
        axes = (*(0 for _ in args), None)
        return jax.vmap(model, in_axes=axes, out_axes=(0, None), axis_name="batch")(*args, state)

    return run


def _by_name(model: Any, arrays: dict[str, Any]) -> tuple[Any, ...]:
    """The first argument, and those whose names the model's parameters have in them: `mask`, of `attention_mask`."""
    try:
        params = list(inspect.signature(model.__call__).parameters)
    except (AttributeError, TypeError, ValueError):
        return ()
    left, found = dict(list(arrays.items())[1:]), list(arrays.values())[:1]
    for param in params[1:]:
        words = {word.removesuffix("s") for word in param.split("_")}
        name = next((name for name in left if words <= {word.removesuffix("s") for word in name.split("_")}), None)
        if name is None:
            break
        found.append(left.pop(name))
    return tuple(found)


def _array(kept: Kept, dtype: Any) -> jax.Array:
    """A recorded input as the model takes it: floats in its own dtype."""
    assert kept.values is not None
    array = kept.values.reshape(kept.shape)
    if array.dtype.kind in "iu":
        return jnp.asarray(array.astype(np.int32) if array.dtype.itemsize == 8 else array)
    return jnp.asarray(array) if array.dtype == bool else jnp.asarray(array).astype(dtype)


def _float_of(model: Any) -> Any:
    """The dtype that most of the model's elements have."""
    sizes: dict[Any, int] = {}
    for leaf in jtu.tree_leaves(eqx.filter(model, eqx.is_inexact_array)):
        sizes[leaf.dtype] = sizes.get(leaf.dtype, 0) + leaf.size
    return max(sizes, key=sizes.__getitem__, default=jnp.float32)


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
