"""Two blocks of a long list exchanged: more pairs of layers than a check tries, so the recorded inputs say which two."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import bridge

pytestmark = pytest.mark.torch
COUNT = 12


class TorchBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down, self.norm = nn.Linear(8, 8), nn.Linear(8, 8), nn.LayerNorm(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(torch.tanh(self.up(self.norm(x))))


class Theirs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(TorchBlock() for _ in range(COUNT)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks(x)


class Block(eqx.Module):
    up: eqx.nn.Linear
    down: eqx.nn.Linear
    norm: eqx.nn.LayerNorm

    def __init__(self) -> None:
        self.up, self.down = (eqx.nn.Linear(8, 8, key=jax.random.key(0)) for _ in range(2))
        self.norm = eqx.nn.LayerNorm(8)

    def __call__(self, x: jax.Array) -> jax.Array:
        return x + self.down(jnp.tanh(self.up(self.norm(x))))


class Ours(eqx.Module):
    blocks: list[Block]

    def __init__(self) -> None:
        self.blocks = [Block() for _ in range(COUNT)]

    def __call__(self, x: jax.Array) -> jax.Array:
        for block in self.blocks:
            x = block(x)
        return x


def test_two_blocks_of_a_long_list_are_found_by_what_they_took(record: Callable[..., Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Theirs().eval()
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    record(model, torch.randn(5, 8), tmp_path / "run.safetensors")
    like = eqx.filter_eval_shape(Ours)

    def checked(*rules: str) -> bridge.Check:
        plan = bridge.plan(tmp_path / "model.safetensors", like, rules)
        ported = bridge.load(tmp_path / "model.safetensors", like, plan)
        return bridge.check(tmp_path / "run.safetensors", ported, plan)

    wrong = checked("blocks.3.** -> blocks.7.**", "blocks.7.** -> blocks.3.**")
    assert wrong.first is not None
    assert (wrong.first.name, wrong.first.module) == ("blocks.3", "blocks.7")
    assert wrong.first.rule is not None, str(wrong)
    assert checked(*wrong.first.rule.splitlines()).ok
