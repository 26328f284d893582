"""`layouts=` where leaves are shared, where layers wrap layers, and where several rules bring the parts of one leaf."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import equinox as eqx
import numpy as np
import pytest

import bridge
from tests.model.own_layers import (
    KEY,
    LINEAR,
    Heads,
    Joined,
    Linear,
    Named,
    arrays,
    both_ways,
    linear,
    random,
    stack,
)
from tests.save.files import write


def test_a_shared_layer_is_compared_with_its_copy(tmp_path: Path):
    shared = eqx.nn.Shared([Linear(), Linear()], lambda pair: pair[1], lambda pair: pair[0])
    one = linear("")
    tensors = {f"net.{n}.{key}": array for n in range(2) for key, array in one.items()}
    model = both_ways(tmp_path, tensors, {"net": shared}, None, LINEAR)
    np.testing.assert_array_equal(arrays(model)[0], one["weight"].T)
    write(tmp_path / "unequal.safetensors", {**tensors, "net.1.weight": one["weight"] + 1})
    with pytest.raises(bridge.CheckpointError, match=r"net\.1\.weight"):
        bridge.load(tmp_path / "unequal.safetensors", {"net": shared}, layouts=LINEAR)


def test_a_shared_leaf_of_a_join(tmp_path: Path):
    layouts = {Joined: "{q|k|v}_proj.weight [_ m] -> qkv [(q|k|v) m]", **LINEAR}
    shared = eqx.nn.Shared([Joined(), Joined()], lambda pair: pair[1], lambda pair: pair[0])
    part = {"q_proj.weight": random(4, 4), "k_proj.weight": random(2, 4), "v_proj.weight": random(2, 4)}
    part |= linear("out.")
    tensors = {f"{n}.{key}": array for n in range(2) for key, array in part.items()}
    model = both_ways(tmp_path, tensors, shared, None, layouts)
    np.testing.assert_array_equal(arrays(model)[0], np.concatenate(list(part.values())[:3]))


def test_a_part_of_a_layer_that_is_shared(tmp_path: Path):
    """Tied embeddings: the matrix of one layer, the other way round in PyTorch, is another's too."""
    pair = {"embed": eqx.nn.Embedding(4, 4, key=KEY), "head": Linear(use_bias=False)}
    like = eqx.nn.Shared(pair, lambda pair: pair["head"].w, lambda pair: pair["embed"].weight)
    matrix = random(4, 4)
    model = both_ways(tmp_path, {"embed.weight": matrix, "head.weight": matrix.T.copy()}, like, None, LINEAR)
    np.testing.assert_array_equal(arrays(model)[0], matrix)


def test_a_head_that_is_the_embedding_turned(tmp_path: Path):
    """PyTorch has one matrix twice, `(vocabulary, width)` both times; the head has it the other way round."""
    pair = {"embed": eqx.nn.Embedding(4, 4, key=KEY), "head": Linear(use_bias=False)}
    like = eqx.nn.Shared(pair, lambda pair: pair["head"].w, lambda pair: pair["embed"].weight.T)
    matrix = random(4, 4)
    model = both_ways(tmp_path, {"embed.weight": matrix, "head.weight": matrix}, like, None, LINEAR)
    np.testing.assert_array_equal(model()["head"].w, matrix.T)


@pytest.mark.parametrize("make", [lambda: [Joined(), Joined()], lambda: stack(Joined, 2)], ids=["list", "stack"])
def test_parts_of_a_join_that_several_rules_bring(tmp_path: Path, make: Any):
    layouts = {Joined: "{q|k|v}_proj.weight [_ m] -> qkv [(q|k|v) m]", **LINEAR}
    tensors: dict[str, np.ndarray] = {}
    for n in range(2):
        tensors |= {
            f"h.{n}.attn.query.w": random(4, 4),
            f"h.{n}.attn.k.w": random(2, 4),
            f"h.{n}.attn.q.w": random(2, 4),
        }
        tensors |= linear(f"h.{n}.o.")
    rules = [
        "h.{l}.attn.query.w -> layers.{l}.q_proj.weight",
        "h.{n}.attn.k.w -> layers.{n}.k_proj.weight",
        "h.{m}.attn.q.w -> layers.{m}.v_proj.weight",
        "h.{l}.o.** -> layers.{l}.out.**",
    ]
    model = both_ways(tmp_path, tensors, {"layers": make()}, rules, layouts)
    first = arrays(model)[0] if isinstance(model["layers"], list) else arrays(model)[0][0]
    wanted = np.concatenate([tensors[f"h.0.attn.{name}.w"] for name in ("query", "k", "q")])
    np.testing.assert_array_equal(first, wanted)


def test_parts_of_a_join_whose_names_no_choice_can_say(tmp_path: Path):
    layouts = {Joined: "{q|k|v}_proj.weight [_ m] -> qkv [(q|k|v) m]", **LINEAR}
    tensors = {"a.x": random(4, 4), "b.y": random(2, 4), "c.z": random(2, 4), **linear("out.")}
    rules = [f"{key} -> {part}_proj.weight" for key, part in zip(("a.x", "b.y", "c.z"), "qkv", strict=True)]
    model = both_ways(tmp_path, tensors, Joined(), rules, layouts)
    np.testing.assert_array_equal(model.qkv[4:6], tensors["b.y"])
    plan = bridge.plan(tmp_path / "in.safetensors", Joined(), rules, layouts=layouts)
    assert "b.y [part m] -> qkv [part[4:6] m] ; part=8" in map(str, plan.rules)


def test_parts_of_interleaved_heads_whose_names_no_choice_can_say(tmp_path: Path):
    layouts = {Heads: "{q|k|v} [(h d) m] -> qkv [h (q|k|v) d m] ; h=2"}
    tensors = {"a.x": random(4, 4), "b.y": random(4, 4), "c.z": random(4, 4)}
    rules = [f"{key} -> {part}" for key, part in zip(tensors, "qkv", strict=True)]
    model = both_ways(tmp_path, tensors, Heads(), rules, layouts)
    np.testing.assert_array_equal(model.qkv[:, 1], tensors["b.y"].reshape(2, 2, 4))


def test_layers_that_differ_in_width_and_names_are_an_error(tmp_path: Path):
    layouts = {Joined: "{q|k|v}_proj.weight [_ m] -> qkv [(q|k|v) m]", **LINEAR}
    wide = {"a.x": (4, 4), "b.y": (2, 4), "c.z": (2, 4)}, {"a.x": (2, 4), "b.y": (4, 4), "c.z": (2, 4)}
    tensors = {f"{n}.{key}": random(*shape) for n, shapes in enumerate(wide) for key, shape in shapes.items()}
    source = write(tmp_path / "in.safetensors", tensors | linear("0.out.") | linear("1.out."))
    rules = [f"{{l}}.{key} -> {{l}}.{part}_proj.weight" for key, part in zip(wide[0], "qkv", strict=True)]
    plan = bridge.plan(source, [Joined(), Joined()], rules, layouts=layouts)
    model = bridge.load(source, [Joined(), Joined()], plan, layouts=layouts)
    np.testing.assert_array_equal(model[1].qkv[2:6], tensors["1.b.y"])
    with pytest.raises(bridge.PlanError, match=r"'\{l\}\.a\.x', .*not equally wide in all layers"):
        _ = plan.rules


@pytest.mark.parametrize("names", [("l", "l"), ("l", "m")])
def test_terms_of_a_sum_that_two_rules_bring(tmp_path: Path, names: tuple[str, str]):
    tensors = {f"h.{n}.{key}": random(4) for n in range(2) for key in ("a", "b", "weight")}
    source = write(tmp_path / "in.safetensors", tensors)
    layouts = {Named: ("bias_one + bias_two -> bias", "weight -> weight")}
    rules = [f"h.{{{names[0]}}}.a -> x.{{{names[0]}}}.bias_one", f"h.{{{names[1]}}}.b -> x.{{{names[1]}}}.bias_two"]
    like = {"x": stack(Named, 2)}
    plan = bridge.plan(source, like, [*rules, "h.{l}.** -> x.**"], layouts=layouts)
    assert plan.ok, str(plan)
    assert bridge.plan(source, like, plan.rules) == plan
    model = bridge.load(source, like, plan)
    np.testing.assert_array_equal(model["x"].bias[1], tensors["h.1.a"] + tensors["h.1.b"])


def test_an_own_layer_within_weight_norm(tmp_path: Path):
    """The wrapper's names are built upon the name that the layout gives."""
    like = eqx.nn.WeightNorm(Linear(), weight_name="w", axis=1)
    tensors = {"weight_g": random(4, 1), "weight_v": random(4, 4), "bias": random(4)}
    model = both_ways(tmp_path, tensors, like, None, LINEAR)
    np.testing.assert_array_equal(model.layer.w, tensors["weight_v"].T)
    np.testing.assert_array_equal(model.g, tensors["weight_g"].T)
