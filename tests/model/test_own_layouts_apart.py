"""`layouts=` beside layouts of ours, for layers that are no modules, by plans and in converted folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bridge
from bridge.mapping.template import Template
from bridge.model.template import take_apart
from tests.model.own_layers import (
    KEY,
    LINEAR,
    Linear,
    Named,
    Norm,
    arrays,
    both_ways,
    linear,
    random,
)
from tests.save.files import read, write

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

    fields: dict[str, Any] = {"model_type": "llama", "vocab_size": 8, "hidden_size": 8, "intermediate_size": 8}
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
