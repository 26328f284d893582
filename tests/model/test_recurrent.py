"""LSTM and GRU cells, by the names of cells and of whole layers."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import bridge
from tests.model.contract import Case, LayoutContract, abstract, close, save


def lstm(key):
    return eqx.nn.LSTMCell(4, 4, key=key)


def gru(key):
    return eqx.nn.GRUCell(4, 4, key=key)


class CellContract(LayoutContract):
    """Two biases become one: which of both a number came from no leaf remembers."""

    cases = ()

    def may_be_lossy(self, key):
        return ".bias_" in f".{key}"


class TestLSTMCell(CellContract):
    cases = (
        Case("square", lambda: torch.nn.LSTMCell(4, 4), lstm, ((4,), (4,), (4,))),
        Case(
            "without biases",
            lambda: torch.nn.LSTMCell(4, 4, bias=False),
            lambda k: eqx.nn.LSTMCell(4, 4, use_bias=False, key=k),
            ((4,), (4,), (4,)),
        ),
    )

    def call(self, layer, state, *args):
        x, h, c = args
        return layer(x, (h, c))

    def call_torch(self, module, *args):
        x, h, c = args
        return module(x, (h, c))


class TestGRUCell(CellContract):
    cases = (
        Case("square", lambda: torch.nn.GRUCell(4, 4), gru, ((4,), (4,))),
        Case(
            "without biases",
            lambda: torch.nn.GRUCell(4, 4, bias=False),
            lambda k: eqx.nn.GRUCell(4, 4, use_bias=False, key=k),
            ((4,), (4,)),
        ),
    )


def scan_lstm(cell, xs):
    zeros = jnp.zeros(cell.hidden_size)

    def step(carry, x):
        h, c = cell(x, carry)
        return (h, c), h

    return jax.lax.scan(step, (zeros, zeros), xs)[1]


def scan_gru(cell, xs):
    def step(carry, x):
        h = cell(x, carry)
        return h, h

    return jax.lax.scan(step, jnp.zeros(cell.hidden_size), xs)[1]


class LayerContract(CellContract):
    """Whole layers of PyTorch, whose names a cell reads too; written are the names of cells."""

    def renamed(self, weights):
        return {f"{name}_l0": value for name, value in weights.items()}


class TestLSTM(LayerContract):
    cases = (Case("one layer", lambda: torch.nn.LSTM(4, 4), lstm, ((6, 4),)),)

    def call(self, layer, state, *args):
        return scan_lstm(layer, *args)

    def call_torch(self, module, *args):
        return module(*args)[0]


class TestGRU(LayerContract):
    cases = (
        Case("one layer", lambda: torch.nn.GRU(4, 4), gru, ((6, 4),)),
        Case(
            "without biases",
            lambda: torch.nn.GRU(4, 4, bias=False),
            lambda k: eqx.nn.GRUCell(4, 4, use_bias=False, key=k),
            ((6, 4),),
        ),
    )

    def call(self, layer, state, *args):
        return scan_gru(layer, *args)

    def call_torch(self, module, *args):
        return module(*args)[0]


class Both(eqx.Module):
    """Cells of a deep recurrent net in two directions: lists, or stacks."""

    cells: eqx.Module | list
    back: eqx.Module | list


DEEP = ["rnn.*_l{l} -> cells.{l}.*", "rnn.*_l{l}_reverse -> back.{l}.*"]


@pytest.mark.torch
@pytest.mark.parametrize(("kind", "cell", "scan"), [("LSTM", lstm, scan_lstm), ("GRU", gru, scan_gru)])
def test_deep_and_reversed_ones_are_a_rename_away(kind, cell, scan, tmp_path):
    # Two directions of width 2 make 4 inputs for the next layer, so every cell has one shape.
    torch.manual_seed(0)
    module = getattr(torch.nn, kind)(4, 2, num_layers=3, bidirectional=True)
    narrow = lambda key: type(cell(key))(4, 2, key=key)  # noqa: E731
    path = save(torch.nn.ModuleDict({"rnn": module}), tmp_path)
    lists = lambda key: Both([narrow(key)] * 3, [narrow(key)] * 3)  # noqa: E731
    model = bridge.load(path, abstract(lists)[0], DEEP)
    xs = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    hidden = jnp.asarray(xs)
    for forward, back in zip(model.cells, model.back, strict=True):
        hidden = jnp.concatenate([scan(forward, hidden), scan(back, hidden[::-1])[::-1]], axis=1)
    with torch.no_grad():
        close(hidden, module(torch.from_numpy(xs))[0])

    keys = jax.random.split(jax.random.key(0), 3)
    stacks = eqx.filter_eval_shape(lambda: Both(eqx.filter_vmap(narrow)(keys), eqx.filter_vmap(narrow)(keys)))
    stacked = bridge.load(path, stacks, DEEP)
    for number, one in enumerate(model.cells):
        for a, b in zip(jax.tree.leaves(stacked.cells), jax.tree.leaves(one), strict=True):
            assert np.array_equal(a[number], b)


@pytest.mark.torch
def test_a_sum_without_one_of_its_terms_is_missing(tmp_path):
    module = torch.nn.LSTMCell(4, 4)
    state = {name: value for name, value in module.state_dict().items() if name != "bias_hh"}
    save_file(state, tmp_path / "half.safetensors")
    plan = bridge.plan(tmp_path / "half.safetensors", abstract(lstm)[0])
    assert plan.missing == ("bias",)
    assert "missing     bias   no key 'bias_hh'" in str(plan)
