"""One array on one side, several on the other."""

from __future__ import annotations

import equinox as eqx
import jax
import pytest

from tests.proposing.trees import certain, check, guessed, layers, proposed


@pytest.mark.parametrize(
    ("keys", "leaves", "rule"),
    [
        (
            layers(2, "h.{}.", {"attn.c_attn.weight": (8, 24), "mlp.c_fc.weight": (8, 32)}),
            {
                "layers.attn.q": (2, 8, 8),
                "layers.attn.k": (2, 8, 8),
                "layers.attn.v": (2, 8, 8),
                "layers.mlp.up": (2, 8, 32),
            },
            "h.{l}.attn.c_attn.weight [m (q|k|v)] -> layers.attn.{q|k|v} [l m _]",
        ),
        (
            {"attn.q_proj.weight": (8, 4), "attn.k_proj.weight": (2, 4), "attn.v_proj.weight": (2, 4)},
            {"attn.qkv": (12, 4)},
            "attn.{q|k|v}_proj.weight [_ m] -> attn.qkv [(q|k|v) m]",
        ),
        (
            {"mlp.gate_proj.weight": (6, 4), "mlp.up_proj.weight": (6, 4)},
            {"mlp.gate_up": (4, 12)},
            "mlp.{gate|up}_proj.weight [_ m] -> mlp.gate_up [m (gate|up)]",
        ),
        (
            {"attn.k_proj.weight": (6, 4), "attn.v_proj.weight": (6, 4), "attn.q_proj.weight": (12, 4)},
            {"attn.q": (4, 12), "attn.kv": (2, 4, 6)},
            "attn.{k|v}_proj.weight [a b] -> attn.kv [(k|v) b a]",
        ),
        (
            {"mlp.gate_proj.weight": (6, 4), "mlp.up_proj.weight": (6, 4)},
            {"mlp.gating_einsum": (2, 4, 6)},
            "mlp.{gate|up}_proj.weight [f m] -> mlp.gating_einsum [(gate|up) m f]",
        ),
        (
            layers(3, "h.{}.", {"mlp.gate_up_proj.weight": (12, 4)}),
            {"mlp.gate": (3, 6, 4), "mlp.up": (3, 6, 4)},
            "h.{l}.mlp.gate_up_proj.weight [(gate|up) m] -> mlp.{gate|up} [l _ m]",
        ),
        (  # all experts in one tensor, as gpt-oss has them
            layers(2, "h.{}.", {"mlp.experts.gate_up_proj": (5, 4, 12), "mlp.experts.down_proj": (5, 6, 4)}),
            {
                "h.experts.gate.kernel": (2, 5, 4, 6),
                "h.experts.up.kernel": (2, 5, 4, 6),
                "h.experts.down.kernel": (2, 5, 6, 4),
            },
            "h.{l}.mlp.experts.gate_up_proj [e m (gate|up)] -> h.experts.{gate|up}.kernel [l e m _]",
        ),
        (  # an expert each, and gate and up of all of them in one array
            {f"h.{l}.experts.{e}.{n}_proj.weight": (6, 4) for l in range(2) for e in range(3) for n in ("gate", "up")},
            {"h.experts.gate_up": (2, 3, 4, 12)},
            "h.{l}.experts.{e}.{gate|up}_proj.weight [_ m] -> h.experts.gate_up [l e m (gate|up)]",
        ),
        (  # PyTorch's Conv1D is transposed already
            layers(2, "h.{}.", {"attn.c_attn.weight": (8, 24), "mlp.c_fc.weight": (8, 32)}),
            {
                "layers.attn.q.weight": (2, 8, 8),
                "layers.attn.k.weight": (2, 8, 8),
                "layers.attn.v.weight": (2, 8, 8),
                "layers.mlp.up.weight": (2, 32, 8),
            },
            "h.{l}.attn.c_attn.weight [m (q|k|v)] -> layers.attn.{q|k|v}.weight [l _ m]",
        ),
    ],
)
def test_parts(keys: dict[str, tuple[int, ...]], leaves: dict[str, tuple[int, ...]], rule: str) -> None:
    others = ["h.{l}.mlp.c_fc.weight -> layers.mlp.up"] if "layers.mlp.up" in leaves else []
    others += (
        ["h.{l}.mlp.c_fc.weight [i o] -> layers.mlp.up.weight [l o i]"] if "layers.mlp.up.weight" in leaves else []
    )
    others += ["h.{l}.mlp.experts.down_proj -> h.experts.down.kernel"] if "h.experts.down.kernel" in leaves else []
    others += ["attn.q_proj.weight [a b] -> attn.q [b a]"] if leaves.get("attn.q") == (4, 12) else []
    proposal = check(keys, leaves, [rule, *others])
    (pair,) = [pair for pair in proposal.pairs if "|" in pair.rule]
    assert "order" in pair.doubt
    assert len(pair.keys) > 1 or len(pair.leaves) > 1


def test_parts_on_both_sides_are_left_apart() -> None:
    shapes = {f"attn.{name}_proj.weight": (8, 4) for name in "qkv"}
    leaves = {f"attn.{name}.weight": (8, 4) for name in "qkv"}
    check(shapes, leaves, ["attn.{q|k|v}_proj.weight -> attn.{q|k|v}.weight"])


def test_a_query_is_not_swallowed_by_what_is_as_large() -> None:
    # k and v together have as many elements as q.
    keys = {"attn.q_proj.weight": (8, 4), "attn.k_proj.weight": (4, 4), "attn.v_proj.weight": (4, 4)}
    leaves = {"attn.query": (8, 4), "attn.kv": (8, 4)}
    proposal = check(
        keys, leaves, ["attn.q_proj.weight -> attn.query", "attn.{k|v}_proj.weight [_ m] -> attn.kv [(k|v) m]"]
    )
    assert [pair.leaves for pair in proposal.pairs if "q_proj" in pair.rule] == [("attn.query",)]


def test_the_packed_projection_of_pytorchs_attention_is_certain() -> None:
    biases = dict.fromkeys(("use_query_bias", "use_key_bias", "use_value_bias", "use_output_bias"), True)
    like = eqx.filter_eval_shape(lambda: {"attn": eqx.nn.MultiheadAttention(2, 8, **biases, key=jax.random.key(0))})
    keys = {"self_attn.in_proj_weight": (24, 8), "self_attn.in_proj_bias": (24,)}
    keys |= {"self_attn.out_proj.weight": (8, 8), "self_attn.out_proj.bias": (8,)}
    proposal = proposed(keys, like)
    assert guessed(proposal) == {}
    assert certain(proposal) == {key: key.replace("self_attn", "attn") for key in keys}
    assert proposal.unmatched == ()
