"""Linear, Embedding, PReLU."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import torch

from tests.model.contract import Case, LayoutContract


class TestLinear(LayoutContract):
    cases = (
        Case("square", lambda: torch.nn.Linear(4, 4), lambda k: eqx.nn.Linear(4, 4, key=k), ((4,),)),
        Case(
            "without bias",
            lambda: torch.nn.Linear(4, 4, bias=False),
            lambda k: eqx.nn.Linear(4, 4, use_bias=False, key=k),
            ((4,),),
        ),
        Case("a scalar in", lambda: torch.nn.Linear(1, 4), lambda k: eqx.nn.Linear("scalar", 4, key=k), ((),)),
        Case("a scalar out", lambda: torch.nn.Linear(4, 1), lambda k: eqx.nn.Linear(4, "scalar", key=k), ((4,),)),
    )

    def call_torch(self, module, *args):
        (x,) = args
        out = module(x.reshape(-1))
        return out.reshape(()) if out.shape == (1,) else out


class TestEmbedding(LayoutContract):
    cases = (Case("square", lambda: torch.nn.Embedding(5, 5), lambda k: eqx.nn.Embedding(5, 5, key=k), ((),)),)

    def call(self, layer, state, *args):
        return jax.vmap(layer)(jnp.array([3, 0, 4]))

    def call_torch(self, module, *args):
        return module(torch.tensor([3, 0, 4]))


class TestPReLU(LayoutContract):
    cases = (
        Case("one slope", lambda: torch.nn.PReLU(), lambda k: eqx.nn.PReLU(), ((3, 4, 4),)),
        Case("one slope, with an axis", lambda: torch.nn.PReLU(), lambda k: eqx.nn.PReLU(jnp.ones(1)), ((3, 4, 4),)),
        Case(
            "a slope for each channel",
            lambda: torch.nn.PReLU(3),
            lambda k: eqx.nn.PReLU(jnp.ones((3, 1, 1))),
            ((3, 4, 4),),
        ),
        Case("vectors", lambda: torch.nn.PReLU(3), lambda k: eqx.nn.PReLU(jnp.ones(3)), ((3,),)),
    )

    def call_torch(self, module, *args):
        return module(args[0][None])[0]
