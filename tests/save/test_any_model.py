"""Models of `eqx.nn`'s layers, in lists, stacks and stacks of stacks, shared or not, under drawn rules: back and forth."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import bridge
from tests.save.files import bits, read, write

LAYERS = {
    "Linear": lambda key: eqx.nn.Linear(3, 2, key=key),
    "Conv1d": lambda key: eqx.nn.Conv1d(2, 3, 3, key=key),
    "ConvTranspose1d": lambda key: eqx.nn.ConvTranspose1d(2, 3, 3, key=key),
    "LayerNorm": lambda key: eqx.nn.LayerNorm(3),
    "Embedding": lambda key: eqx.nn.Embedding(4, 2, key=key),
    "GRUCell": lambda key: eqx.nn.GRUCell(2, 2, key=key),
    "MultiheadAttention": lambda key: eqx.nn.MultiheadAttention(2, 4, key=key),
    "PReLU": lambda key: eqx.nn.PReLU(jnp.ones((3, 1))),
    "WeightNorm": lambda key: eqx.nn.WeightNorm(eqx.nn.Linear(3, 2, key=key)),
}
PLACES = ("alone", "list", "stack", "stack of stacks", "list of stacks", "Sequential")
KEY = jax.random.key(0)


def stack(make: Any, count: int) -> Any:
    return eqx.filter_vmap(make)(jax.random.split(KEY, count))


class Tied(eqx.Module):
    """Two layers of one shape, the second with the first one's weight."""

    a: eqx.nn.Linear
    b: eqx.nn.Linear

    def __init__(self) -> None:
        self.a, self.b = eqx.nn.Linear(3, 3, key=KEY), eqx.nn.Linear(3, 3, key=KEY)


@cache
def abstract(name: str, place: str, count: int) -> tuple[Any, list[str]]:
    """A part of a model without values, which take long to compile, and its rules."""
    rules: list[str] = []

    def make() -> Any:
        part, found = placed(name, place, count)
        rules[:] = found
        return part

    return eqx.filter_eval_shape(make), rules


def placed(name: str, place: str, count: int) -> tuple[Any, list[str]]:
    """A part of a model, and the rules that take it apart, from keys that start with `net.`; `{}` is its name."""
    make = LAYERS[name]
    if place == "alone":
        return make(KEY), ["net.{}.** -> {}.**"]
    if place == "list":
        return [make(key) for key in jax.random.split(KEY, count)], ["net.{}.{{l}}.** -> {}.{{l}}.**"]
    if place == "stack":
        return stack(make, count), ["net.{}.{{l}}.** -> {}.**"]
    if place == "stack of stacks":
        return stack(lambda key: eqx.filter_vmap(make)(jax.random.split(key, 2)), count), [
            "net.{}.{{l}}.{{m}}.** -> {}.**"
        ]
    if place == "list of stacks":
        parts = [stack(make, count) for _ in range(2)]
        return parts, ["net.{}.{{l}}.{{m}}.** -> {}.{{l}}.**"]
    return eqx.nn.Sequential([make(KEY), eqx.nn.Lambda(jax.nn.relu)]), ["net.{}.** -> {}.**"]


@st.composite
def models(draw: st.DrawFn) -> tuple[dict[str, Any], list[str]]:
    """A model of two or three parts, and rules for some of them or for none."""
    model: dict[str, Any] = {}
    rules: list[str] = []
    for part in ("first", "second", "third")[: draw(st.integers(1, 3))]:
        name, place, count = (
            draw(st.sampled_from(sorted(LAYERS))),
            draw(st.sampled_from(PLACES)),
            draw(st.integers(1, 3)),
        )
        model[part], own = abstract(name, place, count)
        if draw(st.integers(0, 3)):
            rules += [rule.format(part, part) for rule in own]
    if draw(st.booleans()):
        model["tied"] = eqx.filter_eval_shape(lambda: eqx.nn.Shared(Tied(), lambda m: m.b.weight, lambda m: m.a.weight))
    if draw(st.booleans()):
        model["table"] = jnp.zeros((draw(st.integers(2, 5)), 3))
        rules += draw(st.sampled_from([[], ["wte [v d] -> table [d v]"], ["wte -> table"]]))
        rules = [rule.replace("[d v]", "[v d]") for rule in rules]
    return valued(model), rules


def valued(model: dict[str, Any]) -> dict[str, Any]:
    """The model with numbers of its own in every array: what lands in the wrong place is another number."""
    leaves, structure = jax.tree.flatten(model)
    numbers = np.random.default_rng(0)
    arrays = (jax.Array, jax.ShapeDtypeStruct)
    found = [jnp.asarray(numbers.standard_normal(x.shape, np.float32)) if isinstance(x, arrays) else x for x in leaves]
    return jax.tree.unflatten(structure, found)


def same(a: Any, b: Any) -> bool:
    arrays = [jax.tree.leaves(eqx.filter(tree, eqx.is_array)) for tree in (a, b)]
    return [bits(x) for x in arrays[0]] == [bits(x) for x in arrays[1]]


@settings(max_examples=40)
@given(models())
def test_what_rules_save_they_load_and_a_plan_and_its_rules_save_it_again(case: tuple[dict[str, Any], list[str]]):
    model, rules = case
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "in.safetensors")
        bridge.save(model, source, rules)
        plan = bridge.plan(source, model, rules)
        assert plan.ok, plan
        assert same(bridge.load(source, model, plan), model)
        for by in (plan, plan.rules, rules):
            bridge.save(model, Path(folder, "out.safetensors"), by, overwrite=True)
            assert read(Path(folder, "out.safetensors")) == read(source), by


@settings(max_examples=40)
@given(models(), st.data())
def test_what_a_file_has_and_no_leaf_takes_comes_from_the_base(
    case: tuple[dict[str, Any], list[str]], data: st.DataObject
):
    """With more in the file than the model wants: by plan and by rules, the file comes back whole."""
    model, rules = case
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "in.safetensors")
        bridge.save(model, source, rules)
        arrays = {key: np.array(value) for key, value in bridge.load(source).items()}
        arrays |= {f"extra.{n}": np.arange(n + 1) for n in range(data.draw(st.integers(0, 3)))}
        full = write(Path(folder, "full.safetensors"), arrays)
        plan = bridge.plan(full, model, rules, allow_unexpected="extra.**")
        loaded = bridge.load(full, model, plan)
        for by in (plan, plan.rules, rules):
            bridge.save(loaded, Path(folder, "out.safetensors"), by, base=full, overwrite=True)
            assert read(Path(folder, "out.safetensors")) == read(full), by
