"""One model of every layer that is looked at alone, in PyTorch and in Equinox, whose attributes have the same names."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import torch
from torch import nn


class TorchZoo(nn.Module):
    """Each layer has an input of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 5)
        self.plain = nn.Linear(6, 6, bias=False)
        self.embed = nn.Embedding(11, 6)
        self.norm = nn.LayerNorm(6)
        self.rms = nn.RMSNorm(6, eps=1e-5)
        self.group = nn.GroupNorm(2, 4)
        self.batch = nn.BatchNorm2d(4)
        self.conv1 = nn.Conv1d(4, 6, 3, padding=1)
        self.conv2 = nn.Conv2d(4, 4, 3, stride=2, dilation=2)
        self.conv3 = nn.Conv3d(4, 2, 2, groups=2)
        self.up = nn.ConvTranspose2d(4, 4, 3, stride=2, padding=1)
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.gru = nn.GRU(6, 3, batch_first=True)
        self.lstm = nn.LSTM(6, 3)
        self.cell = nn.GRUCell(6, 3)
        for parameter in (self.norm.weight, self.rms.weight, self.group.weight, self.batch.weight):
            nn.init.normal_(parameter, 1.0, 0.3)
        nn.init.normal_(self.batch.running_mean)
        nn.init.uniform_(self.batch.running_var, 0.5, 2.0)

    def forward(self, ids: torch.Tensor, x: torch.Tensor, image: torch.Tensor, *, volume: torch.Tensor) -> Any:
        rows = self.embed(ids) + x
        found = [self.linear(rows), self.plain(rows), self.norm(rows), self.rms(rows)]
        found += [self.group(image), self.batch(image), self.conv2(image), self.up(image)]
        found += [self.conv1(image.flatten(2)), self.conv3(volume), self.attention(rows, x, rows)[0]]
        found += [self.gru(rows)[0], self.lstm(rows)[0], self.cell(rows[:, 0])]
        return {"sums": tuple(part.sum() for part in found)}


class Zoo(eqx.Module):
    """The same in Equinox. It has no call: each layer is looked at alone."""

    linear: eqx.nn.Linear
    plain: eqx.nn.Linear
    embed: eqx.nn.Embedding
    norm: eqx.nn.LayerNorm
    rms: eqx.nn.RMSNorm
    group: eqx.nn.GroupNorm
    batch: eqx.nn.BatchNorm
    conv1: eqx.nn.Conv1d
    conv2: eqx.nn.Conv2d
    conv3: eqx.nn.Conv3d
    up: eqx.nn.ConvTranspose2d
    attention: eqx.nn.MultiheadAttention
    gru: eqx.nn.GRUCell
    lstm: eqx.nn.LSTMCell
    cell: eqx.nn.GRUCell

    def __init__(self, key: jax.Array) -> None:
        self.linear = eqx.nn.Linear(6, 5, key=key)
        self.plain = eqx.nn.Linear(6, 6, use_bias=False, key=key)
        self.embed = eqx.nn.Embedding(11, 6, key=key)
        self.norm = eqx.nn.LayerNorm(6)
        self.rms = eqx.nn.RMSNorm(6, use_bias=False)
        self.group = eqx.nn.GroupNorm(2, 4)
        self.batch = eqx.nn.BatchNorm(4, "batch", mode="batch")
        self.conv1 = eqx.nn.Conv1d(4, 6, 3, padding=1, key=key)
        self.conv2 = eqx.nn.Conv2d(4, 4, 3, stride=2, dilation=2, key=key)
        self.conv3 = eqx.nn.Conv3d(4, 2, 2, groups=2, key=key)
        self.up = eqx.nn.ConvTranspose2d(4, 4, 3, stride=2, padding=1, key=key)
        self.attention = eqx.nn.MultiheadAttention(
            2, 6, use_query_bias=True, use_key_bias=True, use_value_bias=True, use_output_bias=True, key=key
        )
        self.gru = eqx.nn.GRUCell(6, 3, key=key)
        self.lstm = eqx.nn.LSTMCell(6, 3, key=key)
        self.cell = eqx.nn.GRUCell(6, 3, key=key)


def torch_zoo() -> TorchZoo:
    torch.manual_seed(0)
    return TorchZoo().eval()


def inputs() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {
        "ids": torch.randint(0, 11, (3, 5)),
        "x": torch.randn(3, 5, 6),
        "image": torch.randn(2, 4, 9, 8),
        "volume": torch.randn(2, 4, 5, 4, 3),
    }


def like() -> Any:
    """The model and its state, abstract."""
    return eqx.filter_eval_shape(lambda: eqx.nn.make_with_state(Zoo)(jax.random.key(0)))
