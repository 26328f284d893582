"""One layer alone: what it makes of the recorded input of its counterpart, against the recorded output."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from bridge.checking.counterparts import Counterpart, Counterparts
from bridge.checking.kept import Kept, common_rows, tensors
from bridge.checking.layers import CELLS, CONVS, at_index
from bridge.checking.matching import checksum
from bridge.checking.measure import Compared, coarser
from bridge.checking.products import Product, product_of
from bridge.checking.recording import RecordedCall, Recording
from bridge.checking.recurrent import attention, cell, places

Outcome = Compared | str
"""Two results to compare, or why there are none."""


class Alone:
    """Compares layers of a model, `pairs`, with one recording. `state` is that of the model's BatchNorms."""

    def __init__(self, recording: Recording, pairs: Counterparts, state: Any = None) -> None:
        self.recording, self.pairs, self.state = recording, pairs, state

    def compare(self, layer: Any, one: Counterpart, fn: Callable[..., Any] | None = None) -> Outcome:
        """Run one layer of a stack on what its counterpart took; `fn` runs layers of the user's own."""
        if not one.parts:
            return one.reason
        # Layers may count on the usual promotion, whatever the program at hand has set.
        with jax.default_matmul_precision("highest"), jax.numpy_dtype_promotion("standard"):
            if fn is not None:
                return self.own(layer, one, fn)
            match layer:
                case eqx.nn.Linear():
                    return self.linear(layer, one)
                case eqx.nn.Embedding():
                    return self.embedding(layer, one)
                case eqx.nn.LayerNorm() | eqx.nn.RMSNorm():
                    return self.norm(layer, one)
                case eqx.nn.GroupNorm() | eqx.nn.BatchNorm():
                    return self.corner(layer, one, _norm_size(layer), "norm")
                case _ if isinstance(layer, CONVS):
                    return self.corner(layer, one, None, "linear")
                case _ if isinstance(layer, CELLS):
                    return cell(layer, one, self.recording, places(self.cells(one)))
                case eqx.nn.MultiheadAttention():
                    return attention(layer, one, self.recording)
                case eqx.nn.WeightNorm() if isinstance(layer.layer, CONVS):
                    return self.corner(layer, one, None, "steps")
                case eqx.nn.SpectralNorm():
                    return f"it computes its weight anew: {_HELP}"
                case _:
                    return self.by_rows(layer, one)

    def cells(self, one: Counterpart) -> Iterator[tuple[Counterpart, Any]]:
        """The cells that are one module in PyTorch."""
        for other in self.pairs.layers.values():
            layer = self.pairs.modules[other.name]
            if other.module == one.module and isinstance(layer, CELLS):
                yield other, at_index(layer, other.index)

    def call(self, one: Counterpart) -> RecordedCall | None:
        """The first call of a counterpart."""
        calls = self.recording.calls_of(one.parts[0].module)
        return calls[0] if calls else None

    def linear(self, layer: eqx.nn.Linear, one: Counterpart) -> Outcome:
        """Row by row; several modules of PyTorch's may be one layer."""
        if not isinstance(layer.in_features, int) or not isinstance(layer.out_features, int):
            return "a layer with scalar features"
        height = layer.weight.shape[0]
        found: list[Compared] = []
        for part in one.parts:
            product = product_of(self.recording, part, layer.weight.shape[1], height)
            if isinstance(product, str):
                return product
            if part.taken is not None:
                return "PyTorch's takes more columns than it does, whose share of the sum nobody kept"
            outcome = _linear(layer, product)
            if isinstance(outcome, str):
                return outcome
            found.append(outcome)
        # Parts are rows of their own; only their largest distance counts.
        return max(found, key=lambda compared: compared.ulps)

    def embedding(self, layer: eqx.nn.Embedding, one: Counterpart) -> Outcome:
        """Row by row: a number is a row of the table."""
        call = self.call(one)
        taken, given = _ends(call)
        param = self.recording.params[one.parts[0].place.param]
        if call is None and (param.shape, param.crc) == (layer.weight.shape, checksum(np.asarray(layer.weight))):
            # PyTorch's model uses the table itself, and looks nothing up: it is the same table.
            table = np.asarray(layer.weight)
            return Compared(table, table, np.abs(table), "embedding", coarser(table.dtype))
        if taken is None or given is None:
            return "PyTorch did not call it in the recorded run"
        width = taken.width
        places = (taken.rows[:, None] * width + taken.columns).reshape(-1)
        numbers = dict(zip(places.tolist(), taken.matrix.reshape(-1).tolist(), strict=True))
        if taken.dtype.kind not in "iu" or given.height != taken.height * width:
            return "PyTorch gives it something else than numbers of rows"
        rows = np.array([row for row in given.rows.tolist() if row in numbers], np.intp)
        ids = np.array([numbers[row] for row in rows.tolist()], np.int32)
        if not len(rows) or (ids < 0).any() or (ids >= layer.weight.shape[0]).any():
            return "PyTorch looked up rows that the layer does not have" if len(rows) else "no row was kept"
        got = np.asarray(by_row(eqx.Partial(eqx.nn.Embedding.__call__, layer), jnp.asarray(ids)))
        if got.shape[1] != given.width:
            return f"its rows have {got.shape[1]} columns, PyTorch's {given.width}"
        got, want = got[:, given.columns], given.at(rows)
        return Compared(got, want, np.abs(want), "embedding", coarser(given.dtype, got.dtype))

    def norm(self, layer: Any, one: Counterpart) -> Outcome:
        """Row by row, where the norm is over the last axis."""
        taken, given = _ends(self.call(one))
        if taken is None or given is None:
            return "PyTorch did not call it in the recorded run"
        if len(layer.shape) != 1 or taken.shape != given.shape or taken.width != layer.shape[0]:
            return f"it is over {layer.shape}, PyTorch's takes {taken.shape}"
        rows = common_rows(taken, given)
        if not len(rows) or len(taken.columns) < taken.width:
            return "no row of its input and output was kept"
        x = _as(taken.at(rows), layer.weight if layer.weight is not None else None)
        got = np.asarray(by_row(layer, x))[:, given.columns]
        size = np.broadcast_to(_norm_size(layer), (len(rows), taken.width))[:, given.columns]
        dtype = coarser(given.dtype, *(leaf.dtype for leaf in jax.tree.leaves(layer) if eqx.is_array(leaf)))
        return Compared(got, given.at(rows), size, "norm", dtype)

    def corner(self, layer: Any, one: Counterpart, size: np.ndarray | None, kind: str) -> Outcome:
        """One example, a corner of it, that PyTorch's layer was run on again."""
        call = self.call(one)
        if call is None or call.corner is None:
            return "PyTorch did not call it in the recorded run" if call is None else "no corner of its input was kept"
        taken, given = next(tensors(call.corner[0]), None), next(tensors(call.corner[1]), None)
        if taken is None or given is None or taken.values is None or given.values is None:
            return "no corner of its input was kept"
        weights = [leaf for leaf in jax.tree.leaves(layer) if eqx.is_inexact_array(leaf)]
        x = _as(taken.values[0], weights[0] if weights else None)
        try:
            got = np.asarray(self.run(layer, x))
            if kind == "steps":
                size = _size(given).reshape(given.shape)[0]
            if size is None:
                size = np.sqrt(np.asarray(self.run(_squared(layer), x * x), np.float64))
        except (TypeError, ValueError, RuntimeError) as error:  # a layer of other channels or another number of axes
            return f"it does not take PyTorch's input, {list(x.shape)}: {str(error).splitlines()[0]}"
        want = given.values[0]
        if got.shape != want.shape:
            return f"it gives {list(got.shape)} where PyTorch gives {list(want.shape)}"
        size = np.broadcast_to(size.reshape(-1, *[1] * (got.ndim - 1)) if kind == "norm" else size, got.shape)
        return Compared(got, want, size, kind, coarser(given.dtype, *(leaf.dtype for leaf in weights)))

    def run(self, layer: Any, x: jax.Array) -> Any:
        """Call a layer on one example, as at inference."""
        if isinstance(layer, eqx.nn.BatchNorm):
            return once(eqx.nn.inference_mode(layer), x, self.state)[0]
        return once(layer, x)

    def by_rows(self, layer: Any, one: Counterpart) -> Outcome:
        """A layer of the user's own, where it takes a row, as the norm of a Gemma does."""
        taken, given = _ends(self.call(one))
        if taken is None or given is None or not callable(layer):
            return f"a layer of your own, without a call of PyTorch's: {_HELP}"
        rows = common_rows(taken, given)
        if not len(rows) or len(taken.columns) < taken.width or taken.dtype.kind in "iub":
            return f"a layer of your own, of which no rows were kept: {_HELP}"
        weights = [leaf for leaf in jax.tree.leaves(layer) if eqx.is_inexact_array(leaf)]
        try:
            got = np.asarray(by_row(layer, _as(taken.at(rows), weights[0] if weights else None)))
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):  # it is the user's own
            return f"a layer of your own, which takes something else than one row: {_HELP}"
        if got.shape != (len(rows), given.width):
            return f"a layer of your own, which gives {list(got.shape[1:])} for a row: {_HELP}"
        dtype = coarser(given.dtype, got.dtype, *(leaf.dtype for leaf in weights))
        return Compared(got[:, given.columns], given.at(rows), _size(given, rows), "steps", dtype)

    def own(self, layer: Any, one: Counterpart, fn: Callable[..., Any]) -> Outcome:
        """By a function of the user's, of the layer and of all that PyTorch's module took."""
        call = self.call(one)
        if call is None:
            return "PyTorch did not call it in the recorded run"
        given = list(tensors(call.output))
        taken = [kept for kept in tensors((call.args, dict(call.kwargs))) if kept.values is not None]
        inputs = [values for kept in taken if (values := kept.complete) is not None]
        if not given or not taken or len(inputs) < len(taken):
            return "its input was not kept whole: record a smaller input, such as one short example"
        got = fn(layer, *map(jnp.asarray, inputs))
        got = next(iter(jax.tree.leaves(got)), None)
        if got is None or tuple(got.shape) != given[0].shape:
            shape = None if got is None else list(got.shape)
            return f"call= gives {shape}, PyTorch {list(given[0].shape)}"
        dtype = coarser(given[0].dtype, got.dtype)
        return Compared(given[0].take(np.asarray(got)), given[0].matrix, _size(given[0]), "steps", dtype)


@eqx.filter_jit
def by_row(layer: Callable[..., Any], x: jax.Array) -> Any:
    """What a layer makes of each row. Compiled, so that layers of one shape cost what one does."""
    return jax.vmap(layer)(x)


@eqx.filter_jit
def once(layer: Callable[..., Any], *args: Any) -> Any:
    """What a layer makes of one example."""
    return layer(*args)


_HELP = "give call= a function for it, or trace="


def _size(given: Kept, rows: np.ndarray | None = None) -> np.ndarray:
    """The root mean square of an output, for each of its elements."""
    want = np.asarray(given.matrix if rows is None else given.at(rows), np.float64)
    return np.full(want.shape, np.sqrt(np.mean(np.square(want))) if want.size else 0.0)


def _ends(call: RecordedCall | None) -> tuple[Kept | None, Kept | None]:
    """The first tensor that a call took, and the first that it gave."""
    if call is None:
        return None, None
    return next(tensors((call.args, dict(call.kwargs))), None), next(tensors(call.output), None)


def _as(values: np.ndarray, leaf: Any) -> jax.Array:
    """Recorded values in the dtype of a layer."""
    return jnp.asarray(values) if leaf is None else jnp.asarray(values).astype(leaf.dtype)


def _linear(layer: eqx.nn.Linear, product: Product) -> Outcome:
    taken = product.taken
    if taken.shape[1] != layer.weight.shape[1]:
        return f"it takes {layer.weight.shape[1]} columns, PyTorch's {taken.shape[1]}"
    bias = layer.bias if product.bias else None
    plain = eqx.tree_at(lambda one: one.bias, layer, bias, is_leaf=lambda leaf: leaf is None)
    got = np.asarray(by_row(eqx.Partial(eqx.nn.Linear.__call__, plain), _as(taken, layer.weight)))
    weight = np.asarray(layer.weight, np.float64)
    square = np.square(np.asarray(taken, np.float64)) @ np.square(weight).T
    if bias is not None:
        square = square + np.square(np.asarray(bias, np.float64))
    dtype = coarser(product.dtype, np.dtype(layer.weight.dtype))
    return Compared(got[:, product.own], product.given, np.sqrt(square)[:, product.own], "linear", dtype)


def _norm_size(layer: Any) -> np.ndarray:
    """The size of what a norm gives: its weight and its bias."""
    found = np.zeros(1)
    for leaf in (layer.weight, layer.bias):
        if leaf is not None:
            found = found + np.abs(np.asarray(leaf, np.float64))
    return found if layer.weight is not None else found + 1


def _squared(layer: Any) -> Any:
    """A convolution of squares: what its sum is of, without signs."""
    return jax.tree.map(lambda leaf: leaf * leaf if eqx.is_inexact_array(leaf) else leaf, layer)
