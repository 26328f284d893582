"""Layers of a user's own against `torch.nn`, as our layouts are held to it."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import bridge
from tests.model.contract import Case as TorchCase
from tests.model.contract import close, random_module, save


class Dense(eqx.Module):
    w: jax.Array
    b: jax.Array

    def __init__(self):
        self.w, self.b = jnp.zeros((4, 6)), jnp.zeros(6)

    def __call__(self, x: jax.Array) -> jax.Array:
        return x @ self.w + self.b


class Gates(eqx.Module):
    """A GRU cell whose gates are apart, each with one matrix for input and state."""

    r: jax.Array
    z: jax.Array
    n: jax.Array
    hidden: jax.Array
    bias: jax.Array
    bias_n: jax.Array

    def __init__(self):
        self.r, self.z, self.n = (jnp.zeros((4, 5)) for _ in range(3))
        self.hidden, self.bias, self.bias_n = jnp.zeros((3, 5, 5)), jnp.zeros(15), jnp.zeros(5)

    def __call__(self, x: jax.Array, h: jax.Array) -> jax.Array:
        r = jax.nn.sigmoid(x @ self.r + h @ self.hidden[0] + self.bias[None, 0:5])
        z = jax.nn.sigmoid(x @ self.z + h @ self.hidden[1] + self.bias[None, 5:10])
        n = jnp.tanh(x @ self.n + self.bias[None, 10:15] + r * (h @ self.hidden[2] + self.bias_n[None]))
        return (1 - z) * n + z * h


class Image(eqx.Module):
    """Channels last."""

    kernel: jax.Array
    bias: jax.Array

    def __init__(self):
        self.kernel, self.bias = jnp.zeros((3, 3, 2, 4)), jnp.zeros(4)

    def __call__(self, x: jax.Array) -> jax.Array:
        numbers = ("NCHW", "HWIO", "NCHW")
        return (
            jax.lax.conv_general_dilated(x, self.kernel, (1, 1), "VALID", dimension_numbers=numbers)
            + (self.bias[None, :, None, None])
        )


CASES: dict[str, tuple[Any, Any, Any, tuple[tuple[int, ...], ...]]] = {
    "Linear": (lambda: torch.nn.Linear(4, 6), Dense, ("weight [o i] -> w [i o]", "bias -> b"), ((4,),)),
    "GRUCell": (
        lambda: torch.nn.GRUCell(4, 5),
        Gates,
        (
            "weight_ih [(r|z|n) i] -> {r|z|n} [i _]",
            "weight_hh [(g o) i] -> hidden [g i o] ; g=3",
            "bias_ih [x[:10]] + bias_hh [x[:10]] -> bias [x[:10]] ; x=15",
            "bias_ih [x[10:]] -> bias [x[10:]] ; x=15",
            "bias_hh [x[10:]] -> bias_n [x] ; x=15",
        ),
        ((1, 4), (1, 5)),
    ),
    "Conv2d": (
        lambda: torch.nn.Conv2d(2, 4, 3),
        Image,
        ("weight [o i h w] -> kernel [h w i o]", "bias -> bias"),
        ((1, 2, 5, 6),),
    ),
}


@pytest.mark.torch
@pytest.mark.parametrize("name", CASES)
def test_computes_what_pytorch_computes(tmp_path: Any, name: str):
    make, layer, rules, shapes = CASES[name]
    module = random_module(TorchCase(name, make, layer, shapes), 0)
    like = eqx.filter_eval_shape(layer)
    model = bridge.load(save(module, tmp_path), like, layouts={layer: rules})
    rng = np.random.default_rng(5)
    inputs = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    with torch.no_grad():
        close(model(*map(jnp.asarray, inputs)), module(*map(torch.from_numpy, inputs)))


@pytest.mark.torch
@pytest.mark.parametrize("name", ["Linear", "Conv2d"])
def test_pytorch_reads_what_rules_write(tmp_path: Any, name: str):
    from safetensors.torch import load_file

    make, layer, rules, shapes = CASES[name]
    case = TorchCase(name, make, layer, shapes)
    module, twin = random_module(case, 0), random_module(case, 1)
    layouts = {layer: rules}
    model = bridge.load(save(module, tmp_path), eqx.filter_eval_shape(layer), layouts=layouts)
    bridge.save(model, tmp_path / "back.safetensors", "** -> **", layouts=layouts)
    twin.load_state_dict(load_file(tmp_path / "back.safetensors"))
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), twin.parameters(), strict=True))
