"""Rules read backwards, without a checkpoint to look at: which keys they name, and what they leave out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bridge
from tests.errors.promised import text_of
from tests.save.files import BF16, bits, finite, read

KEY = jax.random.key(0)
N = 3


def stacked(make: Any) -> Any:
    return eqx.filter_vmap(make)(jax.random.split(KEY, N))


def same(a: Any, b: Any) -> bool:
    arrays = [jax.tree.leaves(eqx.filter(tree, eqx.is_array_like)) for tree in (a, b)]
    return [bits(x) for x in arrays[0]] == [bits(x) for x in arrays[1]]


class Listed(eqx.Module):
    layers: list[eqx.nn.Linear]

    def __init__(self) -> None:
        self.layers = [eqx.nn.Linear(4, 4, key=key) for key in jax.random.split(KEY, N)]


class Stack(eqx.Module):
    layers: eqx.nn.Linear

    def __init__(self) -> None:
        self.layers = stacked(lambda key: eqx.nn.Linear(4, 4, key=key))


def keys_of(model: Listed | Stack, prefix: str) -> dict[str, Any]:
    def part(n: int, name: str) -> Any:
        layers = model.layers
        return getattr(layers[n], name) if isinstance(layers, list) else getattr(layers, name)[n]

    return {f"{prefix}.{n}.{name}": bits(part(n, name)) for n in range(N) for name in ("weight", "bias")}


@pytest.mark.parametrize("kind", [Listed, Stack])
@pytest.mark.parametrize(
    "rules",
    [
        ["h.{l}.** -> layers.{l}.**"],
        ["h.{l}.weight -> layers.{l}.weight", "h.{l}.bias -> layers.{l}.bias"],
        ["h.{l}.weight [a b] -> layers.{l}.weight [a b]", "h.{l}.* -> layers.{l}.*"],
    ],
)
def test_the_same_rules_serve_a_list_and_a_stack(tmp_path: Path, kind: type, rules: list[str]):
    model = kind()
    report = bridge.save(model, tmp_path, rules)
    assert read(tmp_path) == keys_of(model, "h")
    assert report.left_out == ()
    assert same(bridge.load(tmp_path, model, rules), model)


def test_a_sequential_with_prelu_is_saved_by_the_rules_of_its_plan(tmp_path: Path):
    conv, slope = eqx.nn.Conv2d(3, 4, 3, key=KEY), eqx.nn.PReLU(jnp.full((4, 1, 1), 0.3))
    model = eqx.nn.Sequential([conv, slope, eqx.nn.Lambda(jax.nn.relu), eqx.nn.PReLU(0.2)])
    bridge.save(model, tmp_path / "in")
    plan = bridge.plan(tmp_path / "in", model)
    bridge.save(bridge.load(tmp_path / "in", model), tmp_path / "out", plan.rules)
    assert bridge.diff(tmp_path / "in", tmp_path / "out").equal


def test_own_names(tmp_path: Path):
    model = Listed()
    bridge.save(model, tmp_path, "** -> **")
    assert read(tmp_path) == keys_of(model, "layers")
    assert same(bridge.load(tmp_path, model), model)


LAYERS = {
    "Conv2d": lambda key: eqx.nn.Conv2d(2, 3, 3, key=key),
    "ConvTranspose2d": lambda key: eqx.nn.ConvTranspose2d(2, 3, 3, key=key),
    "GRUCell": lambda key: eqx.nn.GRUCell(3, 3, key=key),
    "LSTMCell": lambda key: eqx.nn.LSTMCell(3, 3, key=key),
    "MultiheadAttention": lambda key: eqx.nn.MultiheadAttention(2, 4, key=key),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_is_saved_as_pytorch_has_it(tmp_path: Path, name: str):
    model = {"a": LAYERS[name](KEY)}
    bridge.save(model, tmp_path, "net.** -> **")
    assert all(key.startswith("net.a.") for key in read(tmp_path))
    assert same(bridge.load(tmp_path, model, "net.** -> **"), model)


@pytest.mark.parametrize("name", LAYERS)
def test_a_stacked_layer_needs_a_rule_that_names_its_index(tmp_path: Path, name: str):
    model = {"blocks": stacked(LAYERS[name])}
    with pytest.raises(bridge.PlanError) as caught:
        bridge.save(model, tmp_path / "wrong", "** -> **")
    assert "is a stack of 3 layers, and the rule '** -> **' does not say where their index goes in the keys" in str(
        caught.value
    )
    assert "'blocks.{l}.** -> blocks.{l}.**'" in str(caught.value)
    assert not (tmp_path / "wrong").exists()
    bridge.save(model, tmp_path / "right", ["blocks.{l}.** -> blocks.{l}.**", "** -> **"])
    arrays, rest = eqx.partition(model["blocks"], eqx.is_array)
    listed = {"blocks": [eqx.combine(jax.tree.map(lambda x, n=n: x[n], arrays), rest) for n in range(N)]}
    bridge.save(listed, tmp_path / "listed", "** -> **")
    assert read(tmp_path / "right") == read(tmp_path / "listed")
    assert same(bridge.load(tmp_path / "right", model), model)


class Norm(eqx.Module):
    bn: eqx.nn.BatchNorm

    def __init__(self, mode: Any) -> None:
        self.bn = eqx.nn.BatchNorm(4, "batch", mode=mode)


@pytest.mark.parametrize("mode", ["batch", "ema"])
def test_a_model_and_its_state(tmp_path: Path, mode: str):
    model, state = eqx.nn.make_with_state(Norm)(mode)
    bridge.save((model, state), tmp_path, "** -> **")
    assert {key.removeprefix("bn.") for key in read(tmp_path)} >= {"weight", "bias", "running_mean", "running_var"}
    like = eqx.nn.make_with_state(Norm)(mode)
    assert jax.tree.structure(bridge.load(tmp_path, like)) == jax.tree.structure(like)


CASES: dict[str, tuple[Any, list[str], dict[str, np.ndarray]]] = {
    "transpose": ({"w": finite((2, 4))}, ["k [a b] -> w [b a]"], {"k": finite((2, 4)).T}),
    "index from an axis": (
        {"w": finite((4, 2, 3))},
        ["k.{l} [a] -> w [a l 3]"],
        {},
    ),
    "split is joined": (
        {part: finite((n, 4), seed=n) for part, n in (("q", 4), ("k", 2), ("v", 3))},
        ["qkv [(q|k|v) m] -> {q|k|v} [_ m]"],
        {"qkv": np.concatenate([finite((n, 4), seed=n) for n in (4, 2, 3)])},
    ),
    "join is split": (
        {"qkv": finite((9, 4))},
        ["{q|k|v} [_ m] -> qkv [(q|k|v) m] ; q=4, k=2, v=3"],
        {"q": finite((9, 4))[:4], "k": finite((9, 4))[4:6], "v": finite((9, 4))[6:]},
    ),
    "interleaved": (
        {"gate": finite((3, 2)), "up": finite((3, 2), seed=1)},
        ["gu [(f (gate|up)) m] -> {gate|up} [f m]"],
        {"gu": np.stack([finite((3, 2)), finite((3, 2), seed=1)], 1).reshape(6, 2)},
    ),
    "a sum": (
        {"b": finite((4,))},
        ["r.bias_ih + r.bias_hh -> b"],
        {"r.bias_ih": finite((4,)), "r.bias_hh": np.zeros(4, np.float32)},
    ),
    "a tie": ({"e": finite((4,))}, ["e -> e", "head -> e ; tie=true"], {"e": finite((4,)), "head": finite((4,))}),
    "only a tie": ({"e": finite((4,))}, ["head -> e ; tie=true"], {"head": finite((4,))}),
    "selected": (
        {"tail": finite((2, 4)), "head": finite((3, 4), seed=1)},
        ["h.{l[3:]} -> tail.{l}", "h.{l[:3]} -> head.{l}"],
        {f"h.{n}": (finite((3, 4), seed=1)[n] if n < 3 else finite((2, 4))[n - 3]) for n in range(5)},
    ),
    "add": ({"w": np.float32([1, 2, 3])}, ["w -> w ; add=1.0"], {"w": np.float32([0, 1, 2])}),
}
CASES["index from an axis"] = (
    {"w": finite((4, 2))},
    ["k.{l} [a] -> w [a l]"],
    {f"k.{n}": finite((4, 2))[:, n] for n in range(2)},
)


@pytest.mark.parametrize("case", CASES)
def test_each_construct_backwards(tmp_path: Path, case: str):
    model, rules, expected = CASES[case]
    bridge.save(model, tmp_path, rules)
    assert read(tmp_path) == {key: bits(np.ascontiguousarray(array)) for key, array in expected.items()}
    loaded = bridge.load(tmp_path, model, rules)
    assert same(loaded, jax.tree.map(jnp.asarray, model))


def test_a_leaf_that_no_rule_names_goes_under_its_own_name(tmp_path: Path):
    model = {"a": finite((3,)), "b": finite((3,)), "c": {"d": finite((3,))}}
    report = bridge.save(model, tmp_path / "all", ["x -> a"])
    assert read(tmp_path / "all") == {"x": bits(model["a"]), "b": bits(model["b"]), "c.d": bits(model["c"]["d"])}
    assert report.left_out == ()
    assert same(bridge.load(tmp_path / "all", model, ["x -> a"]), jax.tree.map(jnp.asarray, model))
    report = bridge.save(model, tmp_path / "some", ["x -> a"], leave_out=["c.**"])
    assert read(tmp_path / "some") == {"x": bits(model["a"]), "b": bits(model["b"])}
    assert report.left_out == (("c.d", "left out, as 'leave_out' says"),)


def test_without_rules_every_leaf_goes_under_its_own_name(tmp_path: Path):
    model = {"a": finite((3,)), "norm": eqx.nn.LayerNorm(4)}
    bridge.save(model, tmp_path)
    assert read(tmp_path).keys() == {"a", "norm.weight", "norm.bias"}
    assert same(bridge.load(tmp_path, model), jax.tree.map(jnp.asarray, model))


def test_rules_that_name_nothing(tmp_path: Path):
    with pytest.raises(bridge.PlanError) as caught:
        bridge.save({"a": finite((3,))}, tmp_path / "out", ["x -> y"])
    assert str(caught.value) == text_of("save: rules that name nothing").replace("x.** -> y.**", "x -> y")
    assert not (tmp_path / "out").exists()


def test_half_a_leaf_is_an_error(tmp_path: Path):
    with pytest.raises(bridge.PlanError, match="missing"):
        bridge.save({"w": finite((4, 3))}, tmp_path / "out", ["h.{l[:2]} -> w.{l}"])
    assert not (tmp_path / "out").exists()


def test_dtypes_are_the_leaves(tmp_path: Path):
    model = {"a": finite((3,), BF16), "b": np.arange(3, dtype=np.int8), "c": np.array([True, False])}
    bridge.save(model, tmp_path / "own", "** -> **")
    assert read(tmp_path / "own") == {key: bits(value) for key, value in model.items()}
    bridge.save(model, tmp_path / "f32", "** -> **", dtype=jnp.float32)
    assert read(tmp_path / "f32") == {
        key: bits(value) for key, value in (model | {"a": model["a"].astype("f4")}).items()
    }


@pytest.mark.parametrize("name", LAYERS)
def test_a_stack_that_no_rule_speaks_of_is_saved_as_the_stack_it_is(tmp_path: Path, name: str):
    model = {"blocks": stacked(LAYERS[name]), "head": jnp.ones(3)}
    report = bridge.save(model, tmp_path / "out")
    assert same(bridge.load(tmp_path / "out", model), model)
    plan = bridge.plan(tmp_path / "out", model)
    assert same(bridge.load(tmp_path / "out", model, plan.rules), model)
    rule = "blocks.{l}.** -> blocks.**"
    assert {reason for _, reason in report.left_out} <= {"a sum: saved as the sum and zeros"}
    assert report.remarks == (
        f"leaf 'blocks' is a stack of 3 layers, and is saved as it is: with the rule '{rule}' each layer has keys of "
        "its own",
    )
    assert bridge.save(model, tmp_path / "rule", rule).remarks == ()
    arrays, rest = eqx.partition(model["blocks"], eqx.is_array)
    listed = {"blocks": [eqx.combine(jax.tree.map(lambda x, n=n: x[n], arrays), rest) for n in range(N)]}
    bridge.save(listed | {"head": model["head"]}, tmp_path / "listed")
    assert read(tmp_path / "rule") == read(tmp_path / "listed")
