"""Recurrent cells. PyTorch has two biases and mostly adds them; `nn.LSTM` and `nn.GRU` put `_l0` behind each name."""

from __future__ import annotations

import equinox as eqx

from bridge.model.layouts.layout import Layout

_SUFFIXES = ("", "_l0")
_WEIGHTS = {f"{name}_l0": name for name in ("weight_ih", "weight_hh")}


def lstm_cell(layer: eqx.nn.LSTMCell) -> Layout:
    """`bias` is the sum of both. Gates are in one order: i, f, g, o."""
    return Layout(tuple(f"bias_ih{s} [x] + bias_hh{s} [x] -> bias [x]" for s in _SUFFIXES), _WEIGHTS)


def gru_cell(layer: eqx.nn.GRUCell) -> Layout:
    """The biases of r and z are sums; those of n stay apart, since r multiplies one of them alone."""
    n, size = 2 * layer.hidden_size, 3 * layer.hidden_size
    rules: list[str] = []
    for s in _SUFFIXES:
        rules += [
            f"bias_ih{s} [x[:{n}]] + bias_hh{s} [x[:{n}]] -> bias [x[:{n}]] ; x={size}",
            f"bias_ih{s} [x[{n}:]] -> bias [x[{n}:]] ; x={size}",
            f"bias_hh{s} [x[{n}:]] -> bias_n [x] ; x={size}",
        ]
    return Layout(tuple(rules), _WEIGHTS)
