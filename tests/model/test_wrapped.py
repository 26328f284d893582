"""WeightNorm and SpectralNorm, in the old and the new spelling."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.nn.utils import parametrizations, spectral_norm, weight_norm

import bridge
from tests.model.contract import Case, LayoutContract, abstract, close, random_module, save


def linear(key):
    return eqx.nn.Linear(4, 4, key=key)


def conv(key):
    return eqx.nn.Conv2d(4, 4, 3, key=key)


def transposed(key):
    return eqx.nn.ConvTranspose2d(4, 4, (3, 2), key=key)


def torch_transposed():
    return torch.nn.ConvTranspose2d(4, 4, (3, 2))


IMAGE = ((4, 5, 5),)


class TestWeightNorm(LayoutContract):
    cases = (
        Case(
            "linear, old", lambda: weight_norm(torch.nn.Linear(4, 4)), lambda k: eqx.nn.WeightNorm(linear(k)), ((4,),)
        ),
        Case(
            "linear, new",
            lambda: parametrizations.weight_norm(torch.nn.Linear(4, 4)),
            lambda k: eqx.nn.WeightNorm(linear(k)),
            ((4,),),
        ),
        Case(
            "linear, one norm",
            lambda: parametrizations.weight_norm(torch.nn.Linear(4, 4), dim=None),
            lambda k: eqx.nn.WeightNorm(linear(k), axis=None),
            ((4,),),
        ),
        Case(
            "linear, the other axis",
            lambda: weight_norm(torch.nn.Linear(4, 4), dim=1),
            lambda k: eqx.nn.WeightNorm(linear(k), axis=1),
            ((4,),),
        ),
        Case("conv, old", lambda: weight_norm(torch.nn.Conv2d(4, 4, 3)), lambda k: eqx.nn.WeightNorm(conv(k)), IMAGE),
        Case(
            "conv, new",
            lambda: parametrizations.weight_norm(torch.nn.Conv2d(4, 4, 3)),
            lambda k: eqx.nn.WeightNorm(conv(k)),
            IMAGE,
        ),
        Case(
            "conv, one norm",
            lambda: weight_norm(torch.nn.Conv2d(4, 4, 3), dim=None),
            lambda k: eqx.nn.WeightNorm(conv(k), axis=None),
            IMAGE,
        ),
        # PyTorch's weight has its inputs in front: what Equinox calls axis 0 is its dim 1.
        Case(
            "transposed, by outputs",
            lambda: weight_norm(torch_transposed(), dim=1),
            lambda k: eqx.nn.WeightNorm(transposed(k)),
            IMAGE,
        ),
        Case(
            "transposed, by inputs",
            lambda: parametrizations.weight_norm(torch_transposed(), dim=0),
            lambda k: eqx.nn.WeightNorm(transposed(k), axis=1),
            IMAGE,
        ),
        Case(
            "transposed, one norm",
            lambda: parametrizations.weight_norm(torch_transposed(), dim=None),
            lambda k: eqx.nn.WeightNorm(transposed(k), axis=None),
            IMAGE,
        ),
    )

    def call_torch(self, module, *args):
        return module(args[0][None])[0]


def spectral(layer):
    return lambda k: eqx.nn.SpectralNorm(layer(k), "weight", key=k)


class TestSpectralNorm(LayoutContract):
    """At inference the vectors are used as they are stored."""

    cases = (
        Case("linear", lambda: parametrizations.spectral_norm(torch.nn.Linear(4, 4)), spectral(linear), ((4,),)),
        Case("conv", lambda: parametrizations.spectral_norm(torch.nn.Conv2d(4, 4, 3)), spectral(conv), IMAGE),
        Case("transposed", lambda: parametrizations.spectral_norm(torch_transposed()), spectral(transposed), IMAGE),
    )

    def call(self, layer, state, *args):
        return layer(*args, state, inference=True)[0]

    def call_torch(self, module, *args):
        return module(args[0][None])[0]

    @pytest.mark.torch
    def test_a_training_step_moves_the_vectors_as_pytorch_does(self, case: Case, tmp_path):
        module = random_module(case, 0)
        layer, state = bridge.load(save(module, tmp_path), abstract(case.eqx))
        x = np.random.default_rng(0).normal(size=case.shapes[0]).astype(np.float32)
        got, state = layer(jnp.asarray(x), state)
        wanted = module.train()(torch.from_numpy(x)[None])[0]
        close(got, wanted.detach(), 1e-5)
        close(self.call(layer, state, jnp.asarray(x)), module.eval()(torch.from_numpy(x)[None])[0].detach(), 1e-5)


class TestOldSpectralNorm(LayoutContract):
    """In training it moves the right vector first, Equinox and the new one the left."""

    cases = (
        Case("linear", lambda: spectral_norm(torch.nn.Linear(4, 4)), spectral(linear), ((4,),)),
        Case("conv", lambda: spectral_norm(torch.nn.Conv2d(4, 4, 3)), spectral(conv), IMAGE),
        Case("transposed", lambda: spectral_norm(torch_transposed()), spectral(transposed), IMAGE),
    )
    call, call_torch = TestSpectralNorm.call, TestSpectralNorm.call_torch

    def renamed(self, weights):
        """Written are the new names."""
        old = {"original": "weight_orig", "0._u": "weight_u", "0._v": "weight_v"}
        return {old.get(name.removeprefix("parametrizations.weight."), name): value for name, value in weights.items()}


def test_the_weights_own_name_stays_free():
    """A weight that is stored as it is used has no norm to go with it: taking it for the direction would be a guess."""
    from bridge.model.layouts import layout_of

    layout = layout_of(eqx.nn.WeightNorm(linear(jax.random.key(0))))
    assert layout.aliases == {}
    assert layout.rules == (
        "weight_v [o i] -> layer.weight [o i]",
        "parametrizations.weight.original1 [o i] -> layer.weight [o i]",
        "bias [o] -> layer.bias [o]",
        "weight_g [o 1] -> g [o 1]",
        "parametrizations.weight.original0 [o 1] -> g [o 1]",
    )


def test_norms_that_pytorch_does_not_have_are_missing(tmp_path):
    module = weight_normed()
    plan = bridge.plan(
        save(module, tmp_path),
        abstract(lambda k: eqx.nn.WeightNorm(eqx.nn.ConvTranspose2d(4, 4, 3, groups=2, key=k)))[0],
    )
    assert plan.missing == ("g",)
    assert plan.unexpected == ("parametrizations.weight.original0",)


def weight_normed():
    return parametrizations.weight_norm(torch.nn.ConvTranspose2d(4, 4, 3, groups=2), dim=1)


class Custom(eqx.Module):
    """A layer that no layout knows."""

    weight: jax.Array

    def __call__(self, x):
        return self.weight @ x


class TestAroundALayerOfOnesOwn(LayoutContract):
    cases = (
        Case(
            "weight",
            lambda: parametrizations.weight_norm(torch.nn.Linear(4, 4, bias=False)),
            lambda k: eqx.nn.WeightNorm(Custom(jax.random.normal(k, (4, 4)))),
            ((4,),),
        ),
    )

    def renamed(self, weights):
        """What PyTorch would call it, nobody knows: it is saved by its own name."""
        return {
            "parametrizations.weight.original0": weights["g"],
            "parametrizations.weight.original1": weights["layer.weight"],
        }
