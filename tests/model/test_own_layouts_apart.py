"""`layouts=` beside what else there is: shared layers, layouts of ours, other kinds of layers, plans, converted folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
import pytest

import bridge
from bridge.mapping.template import Template
from bridge.model.template import take_apart
from tests.model.test_own_layouts import KEY, LINEAR, Heads, Joined, Linear, Named, Norm, stack
from tests.save.files import read, write

RNG = np.random.default_rng(0)


def random(*shape: int) -> np.ndarray:
    return np.asarray(RNG.integers(-64, 64, shape) / 8, np.float32)


def arrays(tree: Any) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jtu.tree_leaves(tree) if eqx.is_array(leaf)]


def linear(prefix: str) -> dict[str, np.ndarray]:
    return {f"{prefix}weight": random(4, 4), f"{prefix}bias": random(4)}


def both_ways(tmp_path: Path, tensors: dict[str, np.ndarray], like: Any, rules: Any, layouts: Any) -> Any:
    """Load; hold the plan's rules and its JSON to the plan; save by the plan, which gives the same file."""
    source = write(tmp_path / "in.safetensors", tensors)
    plan = bridge.plan(source, like, rules, layouts=layouts)
    assert plan.ok, str(plan)
    assert bridge.plan(source, like, plan.rules) == plan
    assert bridge.plan(source, like, plan.rules, layouts=layouts) == plan
    assert bridge.Plan.from_json(plan.to_json()) == plan
    model = bridge.load(source, like, rules, layouts=layouts)
    bridge.save(model, tmp_path / "out.safetensors", plan)
    assert read(tmp_path / "out.safetensors") == read(source)
    return model


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


# Layouts of ours


def test_the_names_of_a_batch_norms_state_stay(tmp_path: Path):
    class Norm2(eqx.nn.BatchNorm):
        pass

    like = eqx.filter_eval_shape(eqx.nn.make_with_state(lambda: Norm2(4, "batch", mode="ema")))
    layouts = {Norm2: ["gamma -> weight", "beta -> bias", "mean -> running_mean", "var -> running_var"]}
    tensors = {name: random(4) for name in ("gamma", "beta", "mean", "var")}
    model = both_ways(tmp_path, tensors, like, None, layouts)
    np.testing.assert_array_equal(model[1].get(model[0].ema_state_index)[1], tensors["var"])


def test_the_most_particular_type_has_the_word(tmp_path: Path):
    class Turned(Linear):
        pass

    layouts = {Linear: ("weight [o i] -> w [o i]", "bias -> b"), Turned: ("weight [o i] -> w [i o]", "bias -> b")}
    tensors = {**linear("0."), **linear("1.")}
    for number, given in enumerate((layouts, dict(reversed(layouts.items())))):
        model = both_ways(tmp_path / f"{number}", tensors, [Linear(), Turned()], None, given)
        np.testing.assert_array_equal(model[0].w, tensors["0.weight"])
        np.testing.assert_array_equal(model[1].w, tensors["1.weight"].T)


def test_an_empty_layout_takes_ours_away(tmp_path: Path):
    class Conv(eqx.nn.Conv1d):
        pass

    tensors = {"weight": random(4, 4, 3), "bias": random(4, 1)}
    model = both_ways(tmp_path, tensors, Conv(4, 4, 3, key=KEY), None, {Conv: ()})
    np.testing.assert_array_equal(model.bias, tensors["bias"])


# Other kinds of layers


class Pair(NamedTuple):
    """A layer that is no module of Equinox."""

    kernel: Any
    bias: Any


def test_layers_that_are_no_modules(tmp_path: Path):
    like = {"up": Pair(jnp.zeros((4, 4)), jnp.zeros(4)), "down": [Pair(jnp.zeros((4, 4)), None)]}
    tensors = {"up.weight": random(4, 4), "up.bias": random(4), "down.0.weight": random(4, 4)}
    model = both_ways(tmp_path, tensors, like, None, {Pair: "weight [o i] -> kernel [i o]"})
    np.testing.assert_array_equal(model["down"][0].kernel, tensors["down.0.weight"].T)


def test_a_list_that_mixes_layers_drops_what_one_kind_drops(tmp_path: Path):
    like = {"net": [Norm(), Named(), Norm()]}
    layouts = {Norm: ("weight -> scale", "bias -> shift", "count -> _"), Named: ("weight -> weight", "count -> bias")}
    tensors: dict[str, np.ndarray] = {}
    for n in range(3):
        tensors |= {f"net.{n}.{key}": random(4) for key in ("weight", "count", *(() if n == 1 else ("bias",)))}
    source = write(tmp_path / "in.safetensors", tensors)
    plan = bridge.plan(source, like, layouts=layouts)
    assert plan.ok, str(plan)
    assert list(plan.dropped) == ["net.0.count", "net.2.count"]
    assert bridge.plan(source, like, plan.rules) == plan
    assert bridge.Plan.from_json(plan.to_json()) == plan


# Through the other functions


def test_a_plan_needs_no_layouts(tmp_path: Path):
    source = write(tmp_path / "in.safetensors", linear("net."))
    like = {"net": Linear()}
    plan = bridge.plan(source, like, layouts=LINEAR)
    for options in ({}, {"layouts": LINEAR}):
        model = bridge.load(source, like, plan, **options)
        np.testing.assert_array_equal(model["net"].w, bridge.open(source)["net.weight"].T)
        bridge.save(model, tmp_path / "out.safetensors", plan, overwrite=True, **options)
        assert read(tmp_path / "out.safetensors") == read(source)
    bare = Template(take_apart(like).template.leaves)
    assert {str(rule) for rule in plan.rules} == {
        "net.weight [o i] -> net.w [i o]",
        "net.bias [...] -> net.b [...]",
    }
    assert set(bare.leaves) == {"net.w", "net.b"}


def test_a_converted_folder_needs_none(tmp_path: Path):
    source = write(tmp_path / "in.safetensors", linear("net."))
    like = {"net": Linear()}
    bridge.convert(source, tmp_path / "converted", like, layouts=LINEAR)
    for options in ({}, {"layouts": LINEAR}):
        model = bridge.load(tmp_path / "converted", like, **options)
        np.testing.assert_array_equal(model["net"].w, bridge.open(source)["net.weight"].T)
    bridge.revert(tmp_path / "converted", tmp_path / "back.safetensors")
    assert (tmp_path / "back.safetensors").read_bytes() == source.read_bytes()


def test_from_pretrained_hands_them_on(tmp_path: Path):
    """A model whose matrices some checkpoint has the other way round."""
    from bridge.models import llama

    fields: dict[str, Any] = {"model_type": "llama", "vocab_size": 16, "hidden_size": 8, "intermediate_size": 8}
    fields |= {"num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 8}
    config = llama.Config.from_dict(fields)
    model = llama.Llama(config, key=KEY)
    bridge.save(model, tmp_path, llama.rules(config))
    (tmp_path / "config.json").write_text(json.dumps(fields))
    kind = next(type(node) for node in _modules(model) if type(node).__name__ == "Linear")
    turned = bridge.models.from_pretrained(tmp_path, layouts={kind: "weight [i o] -> weight [o i]"})
    straight = bridge.models.from_pretrained(tmp_path)
    a, b = arrays(straight), arrays(turned)
    different = [x for x, y in zip(a, b, strict=True) if not np.array_equal(x, y)]
    assert len(a) == len(b)
    assert different


def _modules(tree: Any) -> list[Any]:
    from bridge.model.template import walk

    return [module for _, module in walk(tree).modules]


def test_what_layouts_do_not_fill_goes_by_its_own_name(tmp_path: Path):
    source = write(tmp_path / "in.safetensors", {"w": random(4, 4), "bias": random(4)})
    model = bridge.load(source, Linear(), layouts=LINEAR)
    np.testing.assert_array_equal(model.w, bridge.open(source)["w"])
    with pytest.raises(bridge.PlanError, match=r"missing +w +no key 'weight'"):
        bridge.load(write(tmp_path / "x.safetensors", {"bias": random(4)}), Linear(), layouts=LINEAR)


def test_jax_computes_with_what_arrived(tmp_path: Path):
    source = write(tmp_path / "in.safetensors", linear(""))
    model = bridge.load(source, eqx.filter_eval_shape(Linear), layouts=LINEAR)
    x = random(4)
    with bridge.open(source) as ckpt:
        np.testing.assert_allclose(
            jax.jit(lambda m, x: x @ m.w + m.b)(model, x), ckpt["weight"] @ x + ckpt["bias"], rtol=1e-5
        )
