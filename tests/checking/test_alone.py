"""Each layer of `eqx.nn` alone, on what the one of torch.nn took, and with each mistake of the list planted."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import bridge
from tests.checking.zoo import inputs, like, torch_zoo

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def zoo(record: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder: weights and a run."""
    folder = tmp_path_factory.mktemp("zoo")
    model = torch_zoo()
    save_file(model.state_dict(), folder / "model.safetensors")
    record(model, inputs(), folder / "run.safetensors")
    return folder


def checked(folder: Path, rules: list[str] | None = None, changed: Callable[[Any], Any] = lambda model: model) -> Any:
    plan = bridge.plan(folder / "model.safetensors", like(), rules)
    model = changed(bridge.load(folder / "model.safetensors", like(), plan))
    return bridge.check(folder / "run.safetensors", model, plan)


def test_every_layer_agrees(zoo: Path) -> None:
    check = checked(zoo)
    assert check.ok, str(check)
    assert check.covered == 1
    assert {layer.status for layer in check.layers} == {"agrees"}
    names = [layer.name for layer in check.layers]
    assert names[:5] == ["embed", "linear", "plain", "norm", "rms"]  # in PyTorch's order
    assert len(names) == 15
    assert all(layer.module == layer.name for layer in check.layers)


# A planted rule, the layer that departs, and the rule that is printed.
PLANTED = {
    "plain.weight [o i] -> plain.weight [i o]": ("plain", "plain.weight [o i] -> plain.weight [o i]"),
    "norm.weight -> norm.weight ; add=1.0": ("norm", "norm.weight -> norm.weight"),
    "rms.weight -> rms.weight ; add=-1.0": ("rms", "rms.weight -> rms.weight"),
    "linear.weight -> linear.weight ; scale=0.25": ("linear", "linear.weight -> linear.weight"),
    "embed.weight -> embed.weight ; scale=2.0": ("embed", "embed.weight -> embed.weight"),
    "conv2.weight [o i h w] -> conv2.weight [i o h w]": (
        "conv2",
        "conv2.weight [o i h w] -> conv2.weight [o i h w]",
    ),
    "conv2.weight [o i h w] -> conv2.weight [o i w h]": (
        "conv2",
        "conv2.weight [o i h w] -> conv2.weight [o i h w]",
    ),
    'conv1.weight [o i w] -> conv1.weight [o i w] ; flip="w"': (
        "conv1",
        "conv1.weight [o i w] -> conv1.weight [o i w]",
    ),
    "up.weight [i o h w] -> up.weight [o i h w]": (
        "up",
        'up.weight [i o h w] -> up.weight [o i h w] ; flip="h w"',
    ),
    'up.weight [i o h w] -> up.weight [i o h w] ; flip="h w"': (
        "up",
        'up.weight [i o h w] -> up.weight [o i h w] ; flip="h w"',
    ),
    "lstm.weight_{ih|hh}_l0 [(i|f|g|o) m] -> lstm.weight_{ih|hh} [(i|g|f|o) m] ; i=3, f=3, g=3, o=3": ("lstm", None),
    "cell.weight_ih [(r|z|n) m] -> cell.weight_ih [(z|r|n) m] ; r=3, z=3, n=3": ("cell", None),
}


@pytest.mark.parametrize("rule", PLANTED)
def test_a_planted_mistake_is_named_with_its_rule(zoo: Path, rule: str) -> None:
    name, repair = PLANTED[rule]
    check = checked(zoo, [rule])
    assert not check.ok
    assert check.first is not None
    assert check.first.name == name, str(check)
    assert [layer.name for layer in check.layers if layer.status == "departs"] == [name]
    if repair is not None:
        assert check.first.rule == repair, str(check)
    if check.first.rule is not None:  # pasted in place of the wrong one, it is right
        assert checked(zoo, check.first.rule.splitlines()).ok


def test_an_epsilon_is_named_though_no_output_shows_it(zoo: Path) -> None:
    def other(pair: Any) -> Any:
        return eqx.tree_at(lambda m: m.norm, pair[0], eqx.nn.LayerNorm(6, eps=1.1e-5)), pair[1]

    def changed(pair: Any) -> Any:
        norm = eqx.tree_at(lambda n: (n.weight, n.bias), other(pair)[0].norm, (pair[0].norm.weight, pair[0].norm.bias))
        return eqx.tree_at(lambda m: m.norm, pair[0], norm), pair[1]

    check = checked(zoo, changed=changed)
    assert check.first is not None
    assert check.first.name == "norm"
    assert "its epsilon is 1.1e-05, PyTorch's is 1e-05" in check.first.reason


@pytest.mark.parametrize(
    ("dtype", "width"), [(torch.float32, 300), (torch.bfloat16, 16), (torch.bfloat16, 2000), (torch.float16, 300)]
)
def test_two_swapped_rows_of_a_weight_depart_in_every_dtype(
    record: Callable[..., Any], tmp_path: Path, dtype: torch.dtype, width: int
) -> None:
    torch.manual_seed(width)
    layer = torch.nn.Linear(width, 8).to(dtype).eval()
    model = torch.nn.Sequential(OrderedDict(linear=layer)).eval()
    save_file({"linear.weight": layer.weight, "linear.bias": layer.bias}, tmp_path / "model.safetensors")
    record(model, (torch.randn(20, width) * 3).to(dtype), tmp_path / "run.safetensors")

    class Own(eqx.Module):
        linear: eqx.nn.Linear

    kind = {torch.float32: jnp.float32, torch.bfloat16: jnp.bfloat16, torch.float16: jnp.float16}[dtype]
    template = Own(eqx.nn.Linear(width, 8, dtype=kind, key=jax.random.key(0)))
    plan = bridge.plan(tmp_path / "model.safetensors", template)
    loaded = bridge.load(tmp_path / "model.safetensors", template, plan)
    right = bridge.check(tmp_path / "run.safetensors", loaded, plan)
    assert right.ok, str(right)
    swapped = eqx.tree_at(lambda m: m.linear.weight, loaded, loaded.linear.weight[np.array([1, 0, *range(2, 8)])])
    wrong = bridge.check(tmp_path / "run.safetensors", swapped, plan)
    assert wrong.first is not None
    assert wrong.first.name == "linear"
    assert "must be of the same checkpoint" in wrong.first.reason
    assert wrong.first.ulps is not None
    assert wrong.first.ulps > 10
