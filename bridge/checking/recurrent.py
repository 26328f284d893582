"""Layers that take whole sequences: GRU, LSTM, attention."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from bridge.checking.counterparts import Counterpart
from bridge.checking.kept import Kept, tensors
from bridge.checking.measure import Compared, coarser
from bridge.checking.recording import RecordedCall, Recording, TorchModule

Outcome = Compared | str
CellPlace = tuple[int, bool]
"""Of a cell in an RNN: the number of its layer, and whether it runs backwards."""
_NOT_WHOLE = "its input was not kept whole: record a shorter input, or raise the recorder's limit"


def cell(layer: Any, one: Counterpart, recording: Recording, beside: Mapping[CellPlace, Any]) -> Outcome:
    """A cell of Equinox's against `nn.GRUCell`, `nn.LSTMCell`, or `nn.GRU`, `nn.LSTM` with the cells beside it."""
    module = recording.modules[one.parts[0].module]
    call = next(iter(recording.calls_of(module.name)), None)
    if call is None:
        return "PyTorch did not call it in the recorded run"
    given = next(tensors(call.output), None)
    taken = next(iter(call.args), None)
    if not isinstance(taken, Kept) or given is None or taken.values is None or given.values is None:
        return _NOT_WHOLE
    if not (taken.whole and given.whole):
        return _NOT_WHOLE
    x = jnp.asarray(taken.values).astype(layer.weight_ih.dtype)
    if module.torch_kind.endswith("Cell"):
        states = [jnp.asarray(kept.values).astype(x.dtype) for kept in tensors(call.args[1:])]
        got = _steps(layer, *_batched(x, states or _zeros(layer, x.shape[:-1])))
        return _compared(got.reshape(given.shape), given, "recurrent")
    return _sequence(_place(one), {**beside, _place(one): layer}, module, call, x, given)


def _place(one: Counterpart) -> CellPlace:
    """Which layer of an `nn.GRU` or `nn.LSTM` a cell is, and whether it runs backwards."""
    key = one.parts[0].place.param.rpartition(".")[2]
    number, _, reverse = key.removeprefix("weight_ih_l").partition("_")
    return int(number) if number.isdecimal() else -1, bool(reverse)


def places(cells: Iterable[tuple[Counterpart, Any]]) -> dict[CellPlace, Any]:
    """The cells of one module of PyTorch's, by their places in it."""
    return {_place(one): layer for one, layer in cells}


def _sequence(
    own: CellPlace, cells: Mapping[CellPlace, Any], module: TorchModule, call: RecordedCall, x: jax.Array, given: Kept
) -> Outcome:
    """All cells of an `nn.GRU` or `nn.LSTM`, over time: of those inside it only the end of all is known."""
    layers, both = module.attrs.get("num_layers", 1), bool(module.attrs.get("bidirectional", False))
    directions = (False, True) if both else (False,)
    if len(list(tensors(call.args[1:]))) or x.ndim != 3:
        return "it starts from a given state, or has no axis of examples"
    time_first = not module.attrs.get("batch_first", False)
    x = jnp.swapaxes(x, 0, 1) if time_first else x
    # A model may have taken only some of the cells: then only the first layer's can be known.
    needed = [(n, reverse) for n in range(layers if isinstance(layers, int) else 1) for reverse in directions]
    last = [(needed[-1][0], reverse) for reverse in directions]
    if not all(place in cells for place in needed):
        if layers != 1 or own not in last:
            return "PyTorch's RNN has cells beside it that the model has not"
        last = [own]
    for number in range(last[0][0] + 1):
        here = [(number, reverse) for reverse in directions if (number, reverse) in cells]
        found = {place: _directed(cells[place], x, reverse=place[1]) for place in here}
        x = jnp.concatenate(list(found.values()), -1)
    want = np.asarray(given.values)
    want = np.swapaxes(want, 0, 1) if time_first else want
    if len(last) < len(directions):
        half = want.shape[-1] // 2
        want = want[..., half:] if own[1] else want[..., :half]
    got = np.asarray(x)
    if got.shape != want.shape:
        return f"it gives {list(got.shape)} where PyTorch gives {list(want.shape)}"
    return Compared(got, want, _size(want), "recurrent", coarser(given.dtype, got.dtype))


def _directed(layer: Any, x: jax.Array, *, reverse: bool) -> jax.Array:
    """A cell over time, from the end where it runs backwards."""
    return _over_time(layer, x[:, ::-1])[:, ::-1] if reverse else _over_time(layer, x)


@eqx.filter_jit
def _steps(layer: Any, x: jax.Array, *states: jax.Array) -> jax.Array:
    """One step of each example."""
    return jax.vmap(lambda row, *state: _step(layer, row, state)[0])(x, *states)


@eqx.filter_jit
def _over_time(layer: Any, x: jax.Array) -> jax.Array:
    """All steps of each example, from a state of zeros."""

    def run(example: jax.Array) -> jax.Array:
        def step(state: Any, row: jax.Array) -> Any:
            state = _step(layer, row, state)
            return state, state[0]

        zero = tuple(state.reshape(-1) for state in _zeros(layer, ()))
        return jax.lax.scan(step, zero, example)[1]

    return jax.vmap(run)(x)


@eqx.filter_jit
def _attend(layer: Any, axis: int | None, *inputs: jax.Array) -> jax.Array:
    """Attention over examples along an axis."""
    return layer(*inputs) if axis is None else jax.vmap(layer, in_axes=axis, out_axes=axis)(*inputs)


def _step(layer: Any, row: jax.Array, state: Any) -> tuple[jax.Array, ...]:
    """One step of a cell; a state is a tuple of arrays."""
    if isinstance(layer, eqx.nn.LSTMCell):
        return tuple(layer(row, (state[0], state[1])))
    return (layer(row, state[0]),)


def _zeros(layer: Any, lead: tuple[int, ...]) -> list[jax.Array]:
    count = 2 if isinstance(layer, eqx.nn.LSTMCell) else 1
    return [jnp.zeros((*lead, layer.hidden_size), layer.weight_ih.dtype)] * count


def _batched(x: jax.Array, states: list[jax.Array]) -> list[jax.Array]:
    """With an axis of examples, where there is none."""
    return [array[None] if x.ndim == 1 else array for array in (x, *states)]


def attention(layer: eqx.nn.MultiheadAttention, one: Counterpart, recording: Recording) -> Outcome:
    """`eqx.nn.MultiheadAttention` against `nn.MultiheadAttention`, example by example."""
    module = recording.modules[one.parts[0].module]
    call = next(iter(recording.calls_of(module.name)), None)
    if call is None:
        return "PyTorch did not call it in the recorded run"
    if any(isinstance(call.kwargs.get(name), Kept) for name in ("attn_mask", "key_padding_mask")):
        return "PyTorch's was called with a mask"
    inputs = [*call.args[:3], *(call.kwargs[name] for name in ("query", "key", "value") if name in call.kwargs)]
    output = next(tensors(call.output), None)
    if len(inputs) != 3 or output is None or output.values is None:
        return _NOT_WHOLE
    arrays: list[jax.Array] = []
    for kept in inputs:
        if not isinstance(kept, Kept) or kept.values is None or not kept.whole:
            return _NOT_WHOLE
        arrays.append(jnp.asarray(kept.values).astype(layer.query_proj.weight.dtype))
    axis = None if arrays[0].ndim == 2 else 0 if module.attrs.get("batch_first", False) else 1
    return _compared(_attend(layer, axis, *arrays), output, "steps")


def _compared(got: jax.Array, given: Kept, kind: str) -> Outcome:
    """An output that has the size of its root mean square."""
    if tuple(got.shape) != given.shape:
        return f"it gives {list(got.shape)} where PyTorch gives {list(given.shape)}"
    want = given.matrix
    return Compared(given.take(np.asarray(got)), want, _size(want), kind, coarser(given.dtype, got.dtype))


def _size(want: np.ndarray) -> np.ndarray:
    """The root mean square of an output, for each of its elements."""
    return np.full(want.shape, np.sqrt(np.mean(np.square(np.asarray(want, np.float64)))) if want.size else 0.0)
