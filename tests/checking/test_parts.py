"""Layers that PyTorch has otherwise: projections of one parameter, weights that are computed, RNNs of several cells."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

import bridge

pytestmark = pytest.mark.torch


class Theirs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.normed, self.conv = weight_norm(nn.Linear(8, 8)), weight_norm(nn.Conv1d(5, 6, 3, padding=1))
        self.matrix = nn.Parameter(torch.randn(8, 4))
        self.lstm = nn.LSTM(8, 4, num_layers=2, batch_first=True, bidirectional=True)

    def forward(self, x: torch.Tensor) -> Any:
        y = self.attention(x, x, x, need_weights=False)[0]
        return self.conv(self.normed(y)) @ self.matrix, self.lstm(x)[0]


class Ours(eqx.Module):
    q: eqx.nn.Linear
    k: eqx.nn.Linear
    v: eqx.nn.Linear
    out: eqx.nn.Linear
    normed: eqx.nn.WeightNorm
    conv: eqx.nn.WeightNorm
    matrix: eqx.nn.Linear
    forth: list[eqx.nn.LSTMCell]
    back: list[eqx.nn.LSTMCell]

    def __init__(self, key: jax.Array) -> None:
        self.q, self.k, self.v, self.out = (eqx.nn.Linear(8, 8, key=key) for _ in range(4))
        self.normed = eqx.nn.WeightNorm(eqx.nn.Linear(8, 8, key=key))
        self.conv = eqx.nn.WeightNorm(eqx.nn.Conv1d(5, 6, 3, padding=1, key=key))
        self.matrix = eqx.nn.Linear(8, 4, use_bias=False, key=key)
        self.forth, self.back = ([eqx.nn.LSTMCell(8, 4, key=key) for _ in range(2)] for _ in range(2))


RULES = [
    "attention.in_proj_weight [(q|k|v) i] -> {q|k|v}.weight [_ i]",
    "attention.in_proj_bias [(q|k|v)] -> {q|k|v}.bias [_]",
    "attention.out_proj.** -> out.**",
    "matrix [i o] -> matrix.weight [o i]",
    "lstm.{weight_ih|weight_hh|bias_ih|bias_hh}_l{l} -> forth.{l}.{weight_ih|weight_hh|bias_ih|bias_hh}",
    "lstm.{weight_ih|weight_hh|bias_ih|bias_hh}_l{l}_reverse -> back.{l}.{weight_ih|weight_hh|bias_ih|bias_hh}",
]


def test_they_are_compared_all_the_same(record: Callable[..., Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = Theirs().eval()
    save_file({key: value.contiguous() for key, value in theirs.state_dict().items()}, tmp_path / "model.safetensors")
    record(theirs, torch.randn(2, 5, 8), tmp_path / "run.safetensors")
    like = eqx.filter_eval_shape(Ours, jax.random.key(0))

    def checked(rules: list[str]) -> bridge.Check:
        plan = bridge.plan(tmp_path / "model.safetensors", like, rules)
        return bridge.check(tmp_path / "run.safetensors", bridge.load(tmp_path / "model.safetensors", like, plan), plan)

    right = checked(RULES)
    assert right.ok, str(right)
    assert right.covered == 1
    assert len(right.layers) == 11

    turned = [rule.replace("-> {q|k|v}.weight [_ i]", "-> {q|k|v}.weight [i _]") for rule in RULES]
    wrong = checked(turned)
    assert {layer.name for layer in wrong.layers if layer.status == "departs"} == {"q", "k", "v"}
    assert {layer.rule for layer in wrong.layers if layer.status == "departs"} == {RULES[0]}
