"""LayerNorm, GroupNorm, RMSNorm."""

from __future__ import annotations

import equinox as eqx
import jax
import pytest
import torch

import bridge
from tests.model.contract import Case, LayoutContract, save


class TestLayerNorm(LayoutContract):
    cases = (
        Case("vector", lambda: torch.nn.LayerNorm(4), lambda k: eqx.nn.LayerNorm(4), ((4,),)),
        Case("square", lambda: torch.nn.LayerNorm((4, 4)), lambda k: eqx.nn.LayerNorm((4, 4)), ((4, 4),)),
        Case(
            "without bias",
            lambda: torch.nn.LayerNorm(4, bias=False),
            lambda k: eqx.nn.LayerNorm(4, use_bias=False),
            ((4,),),
        ),
    )


class TestGroupNorm(LayoutContract):
    cases = (Case("image", lambda: torch.nn.GroupNorm(2, 4), lambda k: eqx.nn.GroupNorm(2, 4), ((4, 4, 4),)),)

    def call_torch(self, module, *args):
        return module(args[0][None])[0]


class TestRMSNorm(LayoutContract):
    cases = (
        Case(
            "vector",
            lambda: torch.nn.RMSNorm(4, eps=1e-5),
            lambda k: eqx.nn.RMSNorm(4, eps=1e-5, use_bias=False),
            ((4,),),
        ),
    )


@pytest.mark.torch
def test_an_rms_norm_with_a_bias_is_told_of_it(tmp_path):
    path = save(torch.nn.RMSNorm(4), tmp_path)
    plan = bridge.plan(path, eqx.filter_eval_shape(eqx.nn.RMSNorm, 4))
    assert plan.missing == ("bias",)
    with pytest.raises(bridge.PlanError) as caught:
        bridge.load(path, jax.eval_shape(lambda: eqx.nn.RMSNorm(4)))
    assert str(caught.value).splitlines()[1:] == [
        "  missing     bias   no key 'bias'   float32[4]",
        "              PyTorch's RMSNorm has no bias: eqx.nn.RMSNorm(…, use_bias=False)",
    ]
