"""What is marked, because something else would do as well."""

from __future__ import annotations

import pytest

from tests.planning.test_advice import case
from tests.proposing.trees import certain, check, guessed, layers, of_shapes

LAYER = {"intermediate.dense.bias": (16,), "attention.self.query.bias": (4,), "crossattention.self.query.bias": (4,)}


def test_norms_behind_two_attentions_and_an_mlp() -> None:
    norms = [f"{home}output.LayerNorm.weight" for home in ("attention.", "crossattention.", "")]
    keys = layers(2, "encoder.layer.{}.", dict.fromkeys(norms, (4,)) | LAYER)
    own = {name.replace("output.LayerNorm.weight", "output_ln.scale"): (2, 4) for name in norms}
    leaves = {f"enc.block.{name}": shape for name, shape in own.items()}
    leaves |= {f"enc.block.{name}": (2, *shape) for name, shape in LAYER.items()}
    rules = [f"encoder.layer.{{l}}.{a} -> enc.block.{b}" for a, b in zip(norms, own, strict=True)]
    check(keys, leaves, [*rules, "encoder.layer.{l}.** -> enc.block.**"])


def test_what_is_spelled_alike_is_not_overruled_by_what_words_mean() -> None:
    keys = {"left.fc1.bias": (4,), "right.fc2.bias": (4,)}
    assert certain(of_shapes(keys, {"left.up.bias": (4,), "right.down.bias": (4,)}))
    proposal = of_shapes(keys, {"right.up.bias": (4,), "left.down.bias": (4,)})
    assert certain(proposal) == {}
    assert guessed(proposal).keys() == keys.keys()


def test_tables_do_not_tell_which_way_round_a_head_is() -> None:
    keys = {"embed.weight": (9, 8), "positions.weight": (6, 8), "up_proj.weight": (12, 8), "head.weight": (8, 8)}
    leaves = {"embed.weight": (9, 8), "positions.weight": (6, 8), "up.weight": (8, 12), "head.weight": (8, 8)}
    assert certain(of_shapes(keys, leaves))["head.weight [o i]"] == "head.weight [i o]"


@pytest.mark.parametrize(("own", "to"), [("timm", "haiku"), ("haiku", "timm"), ("flax", "bert"), ("torch", "gpt2")])
@pytest.mark.parametrize("square", [False, True])
def test_that_something_is_a_layer_says_little(own: str, to: str, square: bool) -> None:
    made = case(own, to, 0, 0, square=square)
    proposal = of_shapes({k: t.shape for k, t in made.tensors.items()}, {n: s.shape for n, s in made.like.items()})
    sure = [pair for pair in proposal.pairs if not pair.doubt]
    assert len(sure) > 9
    for pair in sure:
        assert {key for leaf in pair.leaves for key in made.truth[leaf]} == {*pair.keys}, pair.rule
