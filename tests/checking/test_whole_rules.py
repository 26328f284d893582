"""Edits of a plan's rules: what they say, and that the values which are tried are those that a load would give."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

import bridge
from bridge.checking.counterparts import Counterpart
from bridge.checking.pieces import pieces_of
from bridge.checking.whole_heads import as_they_are, halves
from bridge.checking.whole_rules import RuleChange, exchanged, in_order, leaf_values

RNG = np.random.default_rng(0)


def tensors(**shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    return {name.replace("__", "."): RNG.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def layers(**names: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Two layers' tensors of these names."""
    return tensors(**{f"h__{n}__{name}__weight": shape for name, shape in names.items() for n in range(2)})


def planned(folder: Path, held: Mapping[str, np.ndarray], like: Any, *rules: str) -> bridge.Plan:
    save_file(dict(held), folder / "x.safetensors")
    plan = bridge.plan(folder / "x.safetensors", like, list(rules))
    assert plan.ok, str(plan)
    return plan


def stack(**shapes: tuple[int, ...]) -> dict[str, Any]:
    return {name: {"weight": jax.ShapeDtypeStruct((2, *shape), np.float32)} for name, shape in shapes.items()}


def counterpart(plan: bridge.Plan, name: str) -> Counterpart:
    leaf = f"{name}.weight"
    held = pieces_of(plan.blocks, {leaf: 1})[leaf][0,]
    return Counterpart(name, (0,), (), pieces={"weight": held})


def loaded(plan: bridge.Plan) -> dict[str, np.ndarray]:
    """What the plan loads, by leaf."""
    like = {name.removesuffix(".weight"): {"weight": leaf} for name, leaf in plan.leaves.items()}
    specs = {name: {"weight": jax.ShapeDtypeStruct(held["weight"].shape, np.float32)} for name, held in like.items()}
    return {
        f"{name}.weight": np.asarray(held["weight"]) for name, held in bridge.load(plan.source, specs, plan).items()
    }


def by(plan: bridge.Plan, changes: Any, wanted: Mapping[str, str]) -> tuple[str, ...]:
    """The rules of the first change whose plan gives each leaf the values that another has now."""
    now = loaded(plan)
    with bridge.open(plan.source) as ckpt:
        held = {key: ckpt[key] for key in ckpt}
    for change in changes:
        made = change.plan(plan)
        if made is not None:
            then = loaded(made)
            for leaf in change.leaves:
                np.testing.assert_array_equal(leaf_values(made, leaf, held), then[leaf])
            if all(np.array_equal(then[leaf], now[other]) for leaf, other in wanted.items()):
                return change.shown
    raise AssertionError("no change does it")


AB = {"a.weight": "b.weight", "b.weight": "a.weight"}


@pytest.mark.parametrize(
    ("held", "rules", "shown"),
    [
        (
            layers(x=(4, 4), y=(4, 4)),
            ["h.{l}.x.weight -> a.weight", "h.{i}.y.weight -> b.weight"],
            ("h.{l}.y.weight -> a.weight", "h.{i}.x.weight -> b.weight"),
        ),
        (
            layers(xy=(8, 4)),
            ["h.{l}.xy.weight [(x|y) m] -> {a|b}.weight [l _ m]"],
            ("h.{l}.xy.weight [(x|y) m] -> {b|a}.weight [l _ m]",),
        ),
        (
            layers(ab=(4, 8)),
            ["h.{l}.ab.weight [m (a|b)] -> {a|b}.weight [l _ m]"],
            ("h.{l}.ab.weight [m (b|a)] -> {a|b}.weight [l _ m]",),
        ),
    ],
)
def test_two_layers_take_each_others_keys(held: Any, rules: Any, shown: Any, tmp_path: Path) -> None:
    plan = planned(tmp_path, held, stack(a=(4, 4), b=(4, 4)), *rules)
    assert by(plan, exchanged(plan, [counterpart(plan, "a"), counterpart(plan, "b")]), AB) == shown


def test_three_layers_take_the_keys_of_the_next(tmp_path: Path) -> None:
    rules = [f"h.{{l}}.{key}.weight -> {leaf}.weight" for key, leaf in zip("xyz", "abc", strict=True)]
    plan = planned(tmp_path, layers(x=(4,), y=(4,), z=(4,)), stack(a=(4,), b=(4,), c=(4,)), *rules)
    wanted = {"a.weight": "b.weight", "b.weight": "c.weight", "c.weight": "a.weight"}
    changes = exchanged(plan, [counterpart(plan, name) for name in "abc"])
    assert by(plan, changes, wanted) == tuple(
        f"h.{{l}}.{key}.weight -> {leaf}.weight" for key, leaf in zip("yzx", "abc", strict=True)
    )


def test_layers_come_in_order(tmp_path: Path) -> None:
    plan = planned(tmp_path, layers(x=(4,)), stack(a=(4,)), "h.{l[1,0]}.x.weight -> a.weight")
    change = in_order(plan)
    assert change is not None
    assert change.shown == ("h.{l}.x.weight -> a.weight",)
    right = planned(tmp_path, layers(x=(4,)), stack(a=(4,)), "h.{l}.x.weight -> a.weight")
    assert in_order(right) is None


def test_rows_of_heads_are_laid_out_otherwise_and_back(tmp_path: Path) -> None:
    held = layers(q=(8, 3), k=(4, 3))
    like = stack(a=(8, 3), b=(4, 3))
    plan = planned(tmp_path, held, like, "h.{l}.q.weight -> a.weight", "h.{l}.k.weight -> b.weight")
    pair = [counterpart(plan, "a"), counterpart(plan, "b")]
    change = halves(plan, pair, 2, to_pairs=True)
    assert change is not None
    assert change.shown == (
        "h.{l}.q.weight [(h t d) m] -> a.weight [l (h d t) m] ; d=2 t=2",
        "h.{l}.k.weight [(h t d) m] -> b.weight [l (h d t) m] ; d=2 t=2",
    )
    made = change.plan(plan)
    assert made is not None
    expected = np.stack([held[f"h.{n}.q.weight"] for n in range(2)])[:, [0, 2, 1, 3, 4, 6, 5, 7]]
    np.testing.assert_array_equal(leaf_values(made, "a.weight", held), expected)
    back = as_they_are(made, [counterpart(made, "a"), counterpart(made, "b")])
    assert back is not None
    assert set(back.shown) == {"h.{l}.q.weight -> a.weight", "h.{l}.k.weight -> b.weight"}
    assert halves(plan, pair, 3, to_pairs=True) is None  # no such heads


@pytest.mark.parametrize(
    "rule",
    ["x [a b] -> w [b a] ; scale=2.0 add=1.0", "x + y -> w", 'x -> w ; flip="a"', "x -> w ; add=-1.0"],
)
def test_values_are_those_of_a_load(rule: str, tmp_path: Path) -> None:
    held = tensors(x=(3, 3), y=(3, 3))
    text = rule.replace("x -> w ; flip", "x [a b] -> w [a b] ; flip")
    rules = [text] if "y" in text else [text, "y -> _"]
    plan = planned(tmp_path, held, {"w": jax.ShapeDtypeStruct((3, 3), np.float32)}, *rules)
    found = leaf_values(plan, "w", held)
    assert found is not None
    np.testing.assert_array_equal(found.astype(np.float32), bridge.load(Path(plan.source), None, plan)["w"])
    assert leaf_values(plan, "w", {"y": held["y"]}) is None


def test_a_change_that_makes_no_plan_is_none(tmp_path: Path) -> None:
    plan = planned(tmp_path, layers(x=(4,)), stack(a=(4,)), "h.{l}.x.weight -> a.weight")
    (rule,) = plan.rules
    assert RuleChange({rule: ("h.{l}.z.weight -> a.weight",)}, "", frozenset(), ()).plan(plan) is None
