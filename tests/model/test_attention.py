"""MultiheadAttention, packed and separate."""

from __future__ import annotations

import equinox as eqx
import jax
import pytest
import torch
from safetensors.torch import save_file

import bridge
from tests.model.contract import Case, LayoutContract, abstract, same_bits, save

BIASES = {"use_query_bias": True, "use_key_bias": True, "use_value_bias": True, "use_output_bias": True}
SEQUENCES = ((5, 8), (6, 8), (6, 8))


class TestMultiheadAttention(LayoutContract):
    cases = (
        Case(
            "packed",
            lambda: torch.nn.MultiheadAttention(8, 2),
            lambda k: eqx.nn.MultiheadAttention(2, 8, **BIASES, key=k),
            SEQUENCES,
        ),
        Case(
            "without biases",
            lambda: torch.nn.MultiheadAttention(8, 2, bias=False),
            lambda k: eqx.nn.MultiheadAttention(2, 8, key=k),
            SEQUENCES,
        ),
        Case(
            "keys of another width",
            lambda: torch.nn.MultiheadAttention(8, 2, kdim=6),
            lambda k: eqx.nn.MultiheadAttention(2, 8, key_size=6, **BIASES, key=k),
            ((5, 8), (6, 6), (6, 8)),
        ),
        Case(
            "keys and values of another width, without biases",
            lambda: torch.nn.MultiheadAttention(8, 4, kdim=6, vdim=4, bias=False),
            lambda k: eqx.nn.MultiheadAttention(4, 8, key_size=6, value_size=4, key=k),
            ((5, 8), (6, 6), (6, 4)),
        ),
    )

    def call_torch(self, module, *args):
        return module(*args)[0]


@pytest.mark.torch
def test_separate_projections_of_equal_widths(tmp_path):
    """No PyTorch layer has these, but conversions do."""
    module = torch.nn.MultiheadAttention(8, 2, bias=False)
    q, k, v = module.in_proj_weight.detach().chunk(3)
    state = {
        "q_proj_weight": q,
        "k_proj_weight": k,
        "v_proj_weight": v,
        "out_proj.weight": module.out_proj.weight.detach(),
    }
    separate = tmp_path / "separate.safetensors"
    save_file({name: value.contiguous() for name, value in state.items()}, separate)
    like = abstract(lambda key: eqx.nn.MultiheadAttention(2, 8, key=key))[0]
    same_bits(bridge.load(separate, like), bridge.load(save(module, tmp_path), like))


@pytest.mark.torch
def test_biases_that_the_model_does_not_have_are_told_of(tmp_path):
    path = save(torch.nn.MultiheadAttention(8, 2), tmp_path)
    with pytest.raises(bridge.PlanError) as caught:
        bridge.load(path, eqx.filter_eval_shape(eqx.nn.MultiheadAttention, 2, 8, key=jax.random.key(0)))
    assert caught.value.unexpected == ("in_proj_bias", "out_proj.bias")
    told = str(caught.value).splitlines()[1:]
    assert [line for line in told if "allow_unexpected" not in line] == [
        "  unexpected  in_proj_bias   float32[24]",
        "              eqx.nn.MultiheadAttention has no biases by default: "
        "use_query_bias=True, use_key_bias=True, use_value_bias=True",
        "  unexpected  out_proj.bias   float32[8]",
        "              eqx.nn.MultiheadAttention has no biases by default: use_output_bias=True",
    ]
