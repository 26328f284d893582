"""A port of convolutions, with attention and a score of each example with each: what is compared, and what repairs it."""

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

WIDTH = 4


class TheirConv(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False), nn.BatchNorm2d(WIDTH)
        nn.init.normal_(self.norm.running_mean)
        nn.init.uniform_(self.norm.running_var, 0.5, 2.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.norm(self.conv(x)))


class ChannelNorm(nn.LayerNorm):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Theirs(nn.Module):
    """Pictures that are as high as wide. A bias that is added behind its layer; projections that attention does."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, WIDTH, 2, 2), ChannelNorm(WIDTH)
        self.blocks = nn.Sequential(TheirConv(), TheirConv())
        self.look = nn.MultiheadAttention(WIDTH, 1, batch_first=True)
        self.project, self.shift = nn.Linear(WIDTH, WIDTH, bias=False), nn.Parameter(torch.randn(WIDTH))
        self.scale = nn.Parameter(torch.tensor(3.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.stem(x))
        x = (self.blocks(x) + x).flatten(2).mT
        x = self.project(self.look(x, x, x)[0].mean(1)) + self.shift
        return x @ x.T * self.scale


class Statistics(eqx.Module):
    weight: jax.Array
    bias: jax.Array
    mean: jax.Array
    variance: jax.Array

    def __init__(self) -> None:
        self.weight, self.bias, self.mean, self.variance = (jnp.ones(WIDTH) for _ in range(4))

    def __call__(self, x: jax.Array) -> jax.Array:
        weight, bias, mean, variance = (
            each[:, None, None] for each in (self.weight, self.bias, self.mean, self.variance)
        )
        return (x - mean) * jax.lax.rsqrt(variance + 1e-5) * weight + bias


class OurConv(eqx.Module):
    conv: eqx.nn.Conv2d
    norm: Statistics

    def __init__(self, key: jax.Array) -> None:
        self.conv, self.norm = eqx.nn.Conv2d(WIDTH, WIDTH, 3, padding=1, use_bias=False, key=key), Statistics()

    def __call__(self, x: jax.Array) -> jax.Array:
        return jax.nn.relu(self.norm(self.conv(x)))


class Ours(eqx.Module):
    stem: eqx.nn.Conv2d
    norm: eqx.nn.LayerNorm
    blocks: list[OurConv]
    query: eqx.nn.Linear
    key: eqx.nn.Linear
    value: eqx.nn.Linear
    out: eqx.nn.Linear
    project: eqx.nn.Linear
    scale: jax.Array

    def __init__(self) -> None:
        key = jax.random.key(0)
        self.stem, self.norm = eqx.nn.Conv2d(3, WIDTH, 2, 2, key=key), eqx.nn.LayerNorm(WIDTH)
        self.blocks = [OurConv(key), OurConv(key)]
        self.query, self.key, self.value, self.out, self.project = (
            eqx.nn.Linear(WIDTH, WIDTH, key=key) for _ in range(5)
        )
        self.scale = jnp.ones(())

    def vector(self, x: jax.Array) -> jax.Array:
        x = jax.vmap(jax.vmap(self.norm))(self.stem(x).transpose(1, 2, 0)).transpose(2, 0, 1)
        x = (self.blocks[1](self.blocks[0](x)) + x).reshape(WIDTH, -1).T
        q, k, v = (jax.vmap(each)(x) for each in (self.query, self.key, self.value))
        x = jax.vmap(self.out)(jax.nn.softmax(q @ k.T / WIDTH**0.5) @ v)
        return self.project(x.mean(0))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Of one picture, with itself."""
        return self.all_with_all(x[None])[0, 0]

    def all_with_all(self, x: jax.Array) -> jax.Array:
        found = jax.vmap(self.vector)(x)
        return found @ found.T * self.scale


RULES = [
    "stem.bias [o] -> stem.bias [o 1 1]",
    "look.in_proj_weight [(query|key|value) m] -> {query|key|value}.weight [_ m]",
    "look.in_proj_bias [(query|key|value)] -> {query|key|value}.bias [_]",
    "look.out_proj.** -> out.**",
    "shift -> project.bias",
    "**.num_batches_tracked -> _ ; zeros=true",
    "blocks.{n}.norm.running_{mean|var} -> blocks.{n}.norm.{mean|variance}",
]


class Recorded:
    """A folder with a checkpoint and a run."""

    def __init__(self, folder: Path, record: Callable[..., Any]) -> None:
        torch.manual_seed(0)
        theirs, self.folder = Theirs().eval(), folder
        for parameter in theirs.parameters():
            nn.init.normal_(parameter, std=0.5)
        save_file(theirs.state_dict(), folder / "model.safetensors")
        record(theirs, torch.randn(2, 3, 12, 12), folder / "run.safetensors")

    def check(self, *rules: str, trace: Any = Ours.all_with_all) -> bridge.Check:
        like = eqx.filter_eval_shape(Ours)
        plan = bridge.plan(self.folder / "model.safetensors", like, [*rules, *RULES])
        model = bridge.load(self.folder / "model.safetensors", like, plan)
        return bridge.check(self.folder / "run.safetensors", model, plan, trace=trace)


@pytest.fixture(scope="module")
def recorded(record: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return Recorded(tmp_path_factory.mktemp("pictures"), record)


def test_a_right_port_agrees_whatever_the_order_of_axes_and_wherever_a_bias_is_added(recorded: Recorded) -> None:
    check = recorded.check()
    assert (check.ok, check.ran, check.covered) == (True, True, 1), str(check)


def test_what_is_of_one_example_is_not_compared_with_what_is_of_all(recorded: Recorded) -> None:
    check = recorded.check(trace=None)
    assert check.first is None, str(check)
    assert (check.ok, check.ran) == (False, False)
    assert [str(layer) for layer in check.layers if layer.status == "not compared"] == ["the model"]


def test_what_a_function_gives_is_compared_with_what_the_model_gave(recorded: Recorded) -> None:
    """And a bias that is added behind its layer is not named in its place."""
    check = recorded.check("scale -> scale ; scale=2.0")
    assert check.first is not None
    assert (str(check.first), check.whole) == ("the model", "departs at 'the model'")


def test_mean_and_variance_exchanged_are_exchanged_again_in_every_block(recorded: Recorded) -> None:
    check = recorded.check("blocks.{n}.norm.running_{var|mean} -> blocks.{n}.norm.{mean|variance}")
    assert check.first is not None
    assert check.first.name == "blocks.0.norm"
    assert check.first.rule is not None
    assert recorded.check(*check.first.rule.splitlines()).ok


def test_two_modules_are_exchanged_with_all_that_they_hold(recorded: Recorded) -> None:
    wrong = [
        f"blocks.{one}.{key} -> blocks.{other}.{leaf}"
        for one, other in ("01", "10")
        for key, leaf in (
            ("conv.weight", "conv.weight"),
            ("norm.running_mean", "norm.mean"),
            ("norm.running_var", "norm.variance"),
            ("norm.weight", "norm.weight"),
            ("norm.bias", "norm.bias"),
        )
    ]
    check = recorded.check(*wrong)
    assert check.first is not None
    assert check.first.name == "blocks.0"
    assert check.first.rule is not None
    assert recorded.check(*check.first.rule.splitlines()).ok


def test_a_norm_that_cannot_be_looked_at_alone_is_tried_in_the_run(recorded: Recorded) -> None:
    check = recorded.check("norm.weight -> norm.weight ; add=1.0")
    assert check.first is not None
    assert (check.first.name, check.first.rule) == ("norm", "norm.weight -> norm.weight")
