"""What is proposed for whole models; wrong without a mark is the one result that must not be."""

from __future__ import annotations

import equinox as eqx
import jax
import pytest

from tests.proposing.trees import certain, check, guessed, layers, of_shapes, proposed, tree

ATTENTION = {f"self_attn.{name}_proj.weight": (32 if name in "qo" else 8, 32) for name in "qkv"}
ATTENTION |= {"self_attn.o_proj.weight": (32, 32)}
MLP = {"mlp.gate_proj.weight": (48, 32), "mlp.up_proj.weight": (48, 32), "mlp.down_proj.weight": (32, 48)}
NORMS = {"input_layernorm.weight": (32,), "post_attention_layernorm.weight": (32,)}
LLAMA = {
    "model.embed_tokens.weight": (100, 32),
    "model.norm.weight": (32,),
    "lm_head.weight": (100, 32),
    **layers(3, "model.layers.{}.", ATTENTION | MLP | NORMS),
}
OWN = {
    "embed": (100, 32),
    "final_norm": (32,),
    "head": (32, 100),
    "blocks.attn.wq": (3, 32, 32),
    "blocks.attn.wk": (3, 32, 8),
    "blocks.attn.wv": (3, 32, 8),
    "blocks.attn.wo": (3, 32, 32),
    "blocks.ffn.w1": (3, 32, 48),
    "blocks.ffn.w3": (3, 32, 48),
    "blocks.ffn.w2": (3, 48, 32),
    "blocks.attn_norm": (3, 32),
    "blocks.ffn_norm": (3, 32),
}
RULES = [
    "model.embed_tokens.weight -> embed",
    "model.norm.weight -> final_norm",
    "lm_head.weight [v d] -> head [d v]",
    "model.layers.{l}.self_attn.{q|k|v|o}_proj.weight [a b] -> blocks.attn.{wq|wk|wv|wo} [l b a]",
    "model.layers.{l}.mlp.{gate|up|down}_proj.weight [a b] -> blocks.ffn.{w1|w3|w2} [l b a]",
    "model.layers.{l}.input_layernorm.weight -> blocks.attn_norm",
    "model.layers.{l}.post_attention_layernorm.weight -> blocks.ffn_norm",
]


def test_a_stack_of_plain_arrays_that_are_the_other_way_round() -> None:
    proposal = check(LLAMA, OWN, RULES)
    assert guessed(proposal) == {}  # k, v and the MLP's matrices say which way round the square ones are
    assert (proposal.unmatched, proposal.left) == ((), ())


def test_a_list_of_layers() -> None:
    leaves = {name: shape for name, shape in OWN.items() if not name.startswith("blocks")}
    leaves |= layers(3, "blocks.{}.", {name[7:]: shape[1:] for name, shape in OWN.items() if name.startswith("blocks")})
    rules = [rule.replace("blocks.", "blocks.{l}.").replace("[l b a]", "[b a]") for rule in RULES]
    assert guessed(check(LLAMA, leaves, rules)) == {}


def test_heads_are_at_the_output_of_a_query_and_at_the_input_of_what_follows() -> None:
    keys = layers(2, "h.{}.", {f"attn.{name}_proj.weight": (32, 32) for name in "qkvo"})
    leaves = {f"layers.attn.{name}": (2, 32, 4, 8) for name in "qkv"} | {"layers.attn.o": (2, 4, 8, 32)}
    rules = [
        "h.{l}.attn.{q|k|v}_proj.weight [(h d) m] -> layers.attn.{q|k|v} [l m h d]",
        "h.{l}.attn.o_proj.weight [m (h d)] -> layers.attn.o [l h d m]",
    ]
    assert guessed(check(keys, leaves, rules)) == {}


def test_square_matrices_without_evidence_are_guesses() -> None:
    proposal = of_shapes({"q_proj.weight": (8, 8), "k_proj.weight": (8, 8)}, {"wq": (8, 8), "wk": (8, 8)})
    assert certain(proposal) == {}
    assert guessed(proposal) == {"q_proj.weight": "wq", "k_proj.weight": "wk"}
    assert "more than one order" in proposal.pairs[0].doubt


def test_a_linear_layer_of_equinox_is_the_way_round_that_pytorchs_is() -> None:
    keys = jax.random.split(jax.random.key(0))
    like = {
        "wq": eqx.nn.Linear(8, 8, use_bias=False, key=keys[0]),
        "wk": eqx.nn.Linear(8, 8, use_bias=False, key=keys[1]),
    }
    proposal = proposed({"q_proj.weight": (8, 8), "k_proj.weight": (8, 8)}, like)
    assert certain(proposal) == {"q_proj.weight": "wq.weight", "k_proj.weight": "wk.weight"}


def test_names_that_do_not_tell_leave_guesses() -> None:
    keys = {f"net.{name}.weight": (8, 4) for name in ("foo", "bar")}
    proposal = of_shapes(keys, {"one.weight": (8, 4), "two.weight": (8, 4)})
    assert certain(proposal) == {}
    assert set(guessed(proposal)) == set(keys)


def test_a_new_leaf_of_an_old_ones_shape_is_no_rename() -> None:
    keys = {"encoder.weight": (8, 4), "classifier.weight": (4, 8)}
    proposal = of_shapes(keys, {"encoder.weight": (8, 4), "projector.weight": (4, 8)})
    assert certain(proposal) == {"encoder.weight": "encoder.weight"}


def test_an_unused_key_that_fits_as_well_makes_a_guess() -> None:
    keys = {f"{root}.layers.{n}.norm.weight": (8,) for root in ("student", "teacher") for n in range(2)}
    assert certain(of_shapes(keys, {"layers.norm.weight": (2, 8)})) == {}


def test_modules_that_could_be_exchanged_are_guesses() -> None:
    keys = {f"tower_{side}.{name}": (8, 8) for side in "ab" for name in ("query.weight", "key.weight")}
    keys |= {f"tower_{side}.{name}": (8,) for side in "ab" for name in ("query.bias", "key.bias")}
    leaves = {name.replace("tower_a", "first").replace("tower_b", "second"): shape for name, shape in keys.items()}
    assert certain(of_shapes(keys, leaves)) == {}


def test_encoders_and_decoders_are_told_apart() -> None:
    layer = ATTENTION | {"fc1.weight": (48, 32), "fc2.weight": (32, 48), "final_layer_norm.weight": (32,)}
    keys = layers(2, "model.encoder.layers.{}.", layer) | layers(2, "model.decoder.layers.{}.", layer)
    keys |= layers(
        2, "model.decoder.layers.{}.", {k.replace("self_attn", "encoder_attn"): s for k, s in ATTENTION.items()}
    )
    words = {"self_attn": "attention", "encoder_attn": "cross", "fc1": "mlp.up", "fc2": "mlp.down", "_proj": ""}
    words |= {"final_layer_norm": "mlp_norm", "model.encoder.layers": "enc", "model.decoder.layers": "dec"}
    renamed = {}
    for name in keys:
        leaf = name
        for old, new in words.items():
            leaf = leaf.replace(old, new)
        renamed[name] = leaf
    leaves = {leaf: keys[name] for name, leaf in renamed.items()}
    proposal = check(keys, leaves, [f"{key} [...] -> {leaf} [...]" for key, leaf in renamed.items()])
    assert not any("dec" in key.split(".")[1] and "enc" in leaf for key, leaf in certain(proposal).items())


def test_layers_that_the_model_keeps_apart() -> None:
    keys = layers(5, "h.{}.", {"attn.q.weight": (8, 4)}) | layers(2, "h.{}.", {"mlp.up.weight": (16, 4)})
    keys |= {f"h.{n}.mlp.experts.{e}.up.weight": (6, 4) for n in range(2, 5) for e in range(3)}
    leaves = {
        "dense.attn.q": (2, 8, 4),
        "dense.mlp.up": (2, 16, 4),
        "sparse.attn.q": (3, 8, 4),
        "sparse.experts.up": (3, 3, 6, 4),
    }
    rules = [
        "h.{l[:2]}.attn.q.weight -> dense.attn.q",
        "h.{l[2:]}.attn.q.weight -> sparse.attn.q",
        "h.{l}.mlp.up.weight -> dense.mlp.up",
        "h.{l[2:]}.mlp.experts.{e}.up.weight -> sparse.experts.up",
    ]
    check(keys, leaves, rules)


def test_numbers_against_words() -> None:
    keys = layers(2, "h.{}.mlp.", {"0.weight": (16, 4), "2.weight": (4, 16), "0.bias": (16,), "2.bias": (4,)})
    leaves = {"h.mlp.fc1.w": (2, 4, 16), "h.mlp.fc2.w": (2, 16, 4), "h.mlp.fc1.b": (2, 16), "h.mlp.fc2.b": (2, 4)}
    rules = [
        "h.{l}.mlp.{0|2}.weight [a b] -> h.mlp.{fc1|fc2}.w [l b a]",
        "h.{l}.mlp.{0|2}.bias -> h.mlp.{fc1|fc2}.b",
    ]
    check(keys, leaves, rules)


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "model.", "module.model."])
def test_wrappers(prefix: str) -> None:
    leaves = {"embed.weight": (100, 8), "norm.weight": (8,), "head.weight": (100, 8)}
    proposal = of_shapes({prefix + name: shape for name, shape in leaves.items()}, leaves)
    assert certain(proposal) == {prefix + name: name for name in leaves}


def test_gamma_and_beta_are_a_norms() -> None:
    keys = layers(3, "layer.{}.", {"LayerNorm.gamma": (4,), "LayerNorm.beta": (4,)})
    like = {"layer": [{"LayerNorm": eqx.nn.LayerNorm(4)} for _ in range(3)]}
    assert certain(proposed(keys, like)) == {
        "layer.{l}.LayerNorm.gamma": "layer.{l}.LayerNorm.weight",
        "layer.{l}.LayerNorm.beta": "layer.{l}.LayerNorm.bias",
    }


def test_one_key_goes_to_one_leaf() -> None:
    keys = {"gpt_neox.embed_in.weight": (50, 8), "embed_out.weight": (50, 8)}
    assert certain(of_shapes(keys, {"embed.weight": (50, 8), "head.weight": (50, 8)})) == {
        "gpt_neox.embed_in.weight": "embed.weight",
        "embed_out.weight": "head.weight",
    }


def test_what_is_left_on_both_sides() -> None:
    keys = {"wte.weight": (50, 8), "h.0.attn.bias": (1, 1, 4, 4), "lm_head.weight": (50, 8), "probe.weight": (3, 3)}
    proposal = of_shapes(keys, {"embed.weight": (50, 8), "adapter": (7, 7)})
    assert [drop.rule for drop in proposal.drops] == ["h.0.attn.bias -> _", "lm_head.weight -> embed.weight ; tie=true"]
    assert (proposal.unmatched, proposal.left) == (("adapter",), ("probe.weight",))


def test_floats_do_not_go_to_integers() -> None:
    proposal = proposed({"table.weight": (4, 4)}, {"table": {"weight": jax.ShapeDtypeStruct((4, 4), "int32")}})
    assert proposal.pairs == ()


def test_nothing_on_either_side() -> None:
    assert of_shapes({}, {"a": (1,)}).unmatched == ("a",)
    assert of_shapes({"a": (1,)}, {}).left == ("a",)
    assert proposed({"a": (1,)}, tree({"a": (1,)})).unmatched == ()
