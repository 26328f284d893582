"""What names say."""

from __future__ import annotations

import numpy as np
import pytest

from bridge.proposing.atom import Atom, Info
from bridge.proposing.concepts import Said, said_by
from bridge.proposing.meanings import snake
from bridge.proposing.synonyms import ATTRIBUTES, CONTEXTS, SEGMENTS


def said(*names: str, shape: tuple[int, ...] = (2, 2)) -> list[Said]:
    """What names say, beside each other."""
    ids = np.zeros(1, np.intp)
    return said_by([Atom(tuple(name.split(".")), np.empty((1, 0), np.int64), ids, Info(shape)) for name in names])


@pytest.mark.parametrize(
    ("name", "role", "attribute"),
    [
        ("model.layers.0.self_attn.q_proj.weight", "q", "w"),
        ("transformer.h.0.attn.c_proj.bias", "o", "b"),
        ("transformer.h.0.mlp.c_proj.weight", "down", "w"),
        ("encoder.layer.0.attention.output.dense.weight", "o", "w"),
        ("encoder.layer.0.attention.self.key.weight", "k", "w"),
        ("decoder.layers_0.mlp.wi_0.kernel", "gate", "w"),
        ("layers.0.feed_forward.w2.weight", "down", "w"),
        ("embeddings.LayerNorm.gamma", "norm_pre", "w"),
        ("layers.norm1.scale", "norm1", "w"),
        ("bn1.running_mean", "norm", "mean"),
        ("ln_f.beta", "normf", "b"),
        ("norm.weight", "normf", "w"),
        ("blocks.0.wq", "q", ""),
    ],
)
def test_role_and_attribute(name: str, role: str, attribute: str) -> None:
    (found,) = said(name)
    assert (found.role, found.attribute) == (role, attribute)


def test_w1_is_a_gate_only_beside_w3() -> None:
    assert [each.role for each in said("mlp.w1.weight", "mlp.w3.weight", "mlp.w2.weight")] == ["gate", "up", "down"]
    assert [each.role for each in said("mlp.w1.weight", "mlp.w2.weight")] == ["up", "down"]


def test_a_gate_without_an_up_is_a_router() -> None:
    assert said("moe.gate.weight", "moe.experts.0.up.weight")[0].role == "router"
    assert said("mlp.gate.weight", "mlp.up.weight", "mlp.down.weight")[0].role == "gate"


def test_the_norm_after_attention_is_the_mlps_unless_that_has_its_own() -> None:
    assert said("l.input_layernorm.weight", "l.post_attention_layernorm.weight")[1].role == "norm2"
    four = said("l.post_attention_layernorm.weight", "l.pre_feedforward_layernorm.weight")
    assert [each.role for each in four] == ["norm_after_attn", "norm2"]


def test_a_final_norm_within_a_layer_is_the_mlps() -> None:
    assert said("decoder.layers.{}.final_layer_norm.weight")[0].role == "norm2"
    assert said("decoder.final_layer_norm.weight")[0].role == "normf"


def test_the_norm_of_a_block_whose_attention_has_its_own_is_the_mlps() -> None:
    pre = said("layer.{}.attention.LayerNorm.weight", "layer.{}.LayerNorm.weight", "layer.{}.intermediate.dense.weight")
    assert [each.role for each in pre[:2]] == ["norm1", "norm2"]
    assert said("layer.{}.attention.query.weight", "layer.{}.LayerNorm.weight")[1].role == "norm1"


def test_a_query_of_positions_is_not_the_query() -> None:
    found = said("attn.pos_q_proj.weight", "attention.pos_query.weight", "attn.q_proj.weight", "attn.rel_k_proj.weight")
    assert [each.role for each in found] == ["pos q", "pos q", "q", "relbias k"]
    assert said("attn.local_q_proj.weight")[0].strange == {"local"}  # a word that nobody knows
    assert said("layers.attn_q_proj.weight", "layers.mlp_up.weight")[0].role == "q"


def test_a_models_own_name_in_front_of_all_says_nothing() -> None:
    names = [f"mymodel.{name}" for name in ("embed.weight", "layernorm.weight", "layers.{}.q.weight")]
    assert said(*names, "classifier.weight")[1].role == "normf"
    assert "mymodel" not in said(*names)[1].words
    assert (
        "student" in said("student.norm.weight", "student.q.weight", "student.k.weight", "teacher.norm.weight")[0].words
    )


def test_numbers_that_are_text_count_by_rank() -> None:
    one, other = said("mlp.0.weight", "mlp.2.weight"), said("mlp.fc1.weight", "mlp.fc2.weight")
    ranks = [[c for c in each.weights if c.startswith("rank")] for each in (*one, *other)]
    assert ranks == [["rank 0 of 2"], ["rank 1 of 2"]] * 2


def test_encoders_decoders_and_cross_attention_are_contexts() -> None:
    one, two, three = said("encoder.self_attn.q.weight", "decoder.self_attn.q.weight", "decoder.encoder_attn.q.weight")
    assert "enc" in one.contexts
    assert "dec" in two.contexts
    assert {"dec", "cross"} <= three.contexts
    assert "attn" not in three.contexts


def test_words_are_cut_at_cases() -> None:
    assert [snake(text) for text in ("LayerNorm", "DenseReluDense", "SelfAttention", "q_proj")] == [
        "layernorm",
        "dense_relu_dense",
        "self_attention",
        "q_proj",
    ]


def test_a_spelling_means_one_thing() -> None:
    for table in (ATTRIBUTES, SEGMENTS, CONTEXTS):
        spellings = [spelling for text in table.values() for spelling in text.split()]
        assert sorted(spellings) == sorted(set(spellings))
