"""Leaves of which a checkpoint has a part: padded vocabularies, stacks with layers to come, and what stays a problem."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bridge
from tests.planning.reports import F4
from tests.save.files import write


def counting(*shape: int, at: int = 0) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=F4).reshape(shape) + at


STORED = {f"l.{n}.w": counting(2, at=10 * n) for n in range(3)} | {"emb": counting(10, 4)}
LIKE = {"l": {"w": jnp.full((5, 2), -1.0)}, "embed": jnp.full((12, 4), -2.0)}
RULE = "emb [v d] -> embed [v[:10] d]"
ALLOW = ["l.w", "embed"]


def stack(base: float, dtype: Any = F4) -> np.ndarray:
    whole = np.full((5, 2), base, dtype)
    whole[:3] = np.stack([STORED[f"l.{n}.w"] for n in range(3)])
    return whole


def padded(base: float, dtype: Any = F4) -> np.ndarray:
    whole = np.full((12, 4), base, dtype)
    whole[:10] = STORED["emb"]
    return whole


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "x.safetensors", STORED)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"max_host_bytes": 64},  # a part at a time
        {"max_host_bytes": 1 << 20},
        {"sharding": jax.devices("cpu")[0]},
        {"mmap": False},
    ],
)
def test_the_rest_keeps_the_template_s_values(source: Path, options: Mapping[str, Any]):
    made = bridge.load(source, LIKE, RULE, allow_missing=ALLOW, **options)
    assert np.asarray(made["l"]["w"]).tobytes() == stack(-1).tobytes()
    assert np.asarray(made["embed"]).tobytes() == padded(-2).tobytes()
    assert (LIKE["embed"] == -2).all()  # the template is as it was


def test_values_of_the_template_are_cast_as_the_leaf_is(source: Path):
    made = bridge.load(source, LIKE, RULE, allow_missing=ALLOW, dtype="bfloat16")
    for array, expected in ((made["l"]["w"], stack(-1)), (made["embed"], padded(-2))):
        assert array.dtype == jnp.bfloat16
        assert np.asarray(array).astype(F4).tobytes() == expected.tobytes()


def test_only_what_is_kept_has_to_fit(source: Path):
    like = {**LIKE, "embed": np.full((12, 4), 1e30, F4)}
    like["embed"][10:] = 7
    made = bridge.load(source, like, RULE, allow_missing=ALLOW, dtype={"embed": "float16"})
    assert np.asarray(made["embed"]).tobytes() == padded(7, np.float16).tobytes()


def test_a_function_gets_the_whole_leaf_s_spec_and_gives_what_is_missing(source: Path):
    asked: list[tuple[str, Any]] = []

    def make(name: str, spec: Any) -> Any:
        asked.append((name, spec))
        return jnp.full(spec.shape, 9, spec.dtype)

    like = eqx.filter_eval_shape(lambda: LIKE)
    made = bridge.load(source, like, RULE, allow_missing={"*": make, "l.w": make})
    assert {name: (spec.shape, spec.dtype) for name, spec in asked} == {
        "l.w": ((5, 2), np.dtype(F4)),
        "embed": ((12, 4), np.dtype(F4)),
    }
    assert np.asarray(made["l"]["w"]).tobytes() == stack(9).tobytes()
    assert np.asarray(made["embed"]).tobytes() == padded(9).tobytes()


def test_what_is_not_named_stays_a_problem(source: Path):
    plan = bridge.plan(source, LIKE, RULE, allow_missing="embed")
    assert plan.missing == ("l.w[3]", "l.w[4]")
    assert 'allow_missing=["l.w"]' in str(plan)
    plan = bridge.plan(source, LIKE, RULE)
    assert plan.missing == ("embed[10:12]", "l.w[3]", "l.w[4]")
    assert 'allow_missing=["embed"]' in str(plan)


def test_the_plan_says_what_is_kept_and_comes_back_from_json(source: Path):
    plan = bridge.plan(source, LIKE, RULE, allow_missing=ALLOW)
    assert str(plan).splitlines()[-2:] == [
        "  kept from the template: embed[10:12]",
        "  kept from the template: l.w[3:5]",
    ]
    again = bridge.Plan.from_json(plan.to_json())
    assert (again == plan, str(again)) == (True, str(plan))
    assert bridge.plan(source, LIKE, plan.rules, allow_missing=ALLOW) == plan
    made = bridge.load(source, LIKE, again)
    assert np.asarray(made["embed"]).tobytes() == padded(-2).tobytes()


def test_converted_and_back(source: Path, tmp_path: Path):
    bridge.convert(source, tmp_path / "c", LIKE, RULE, allow_missing=ALLOW, max_host_bytes=64)
    made = bridge.load(tmp_path / "c", LIKE)
    assert np.asarray(made["l"]["w"]).tobytes() == stack(-1).tobytes()
    assert np.asarray(made["embed"]).tobytes() == padded(-2).tobytes()
    bridge.revert(tmp_path / "c", tmp_path / "back.safetensors")
    assert bridge.diff(tmp_path / "back.safetensors", source).equal


def planned(folder: Path, keys: Mapping[str, tuple[int, ...]], like: Any, *rules: str) -> bridge.Plan:
    path = write(folder / "y.safetensors", {key: np.ones(shape, F4) for key, shape in keys.items()})
    return bridge.plan(path, like, list(rules), allow_missing="**")


@pytest.mark.parametrize(
    ("present", "missing"),
    [
        ([0, 1, 3], ("w[2]",)),
        ([1, 2], ("w[0]",)),
        ([4], ("w[0]", "w[1]", "w[2]", "w[3]")),
        ([0], ()),
        ([0, 1, 2, 3], ()),
    ],
)
def test_a_hole_among_layers_stays_a_problem(tmp_path: Path, present: list[int], missing: tuple[str, ...]):
    plan = planned(tmp_path, {f"{n}.w": (2,) for n in present}, {"w": jnp.zeros((5, 2))}, "{l}.w -> w")
    assert plan.missing == missing


def test_holes_among_layers_and_experts(tmp_path: Path):
    def plan(*places: tuple[int, int]) -> bridge.Plan:
        return planned(tmp_path, {f"h.{l}.{e}": (2,) for l, e in places}, {"h": jnp.zeros((3, 4, 2))}, "h.{l}.{e} -> h")

    assert plan(*((l, e) for l in range(2) for e in range(4))).ok
    assert plan(*((l, e) for l in range(3) for e in range(3))).ok
    assert plan((0, 0)).ok
    assert plan(*((l, e) for l in range(3) for e in range(4) if (l, e) != (1, 2))).missing == ("h[1, 2]",)
    assert plan((1, 2)).missing != ()


def test_one_part_of_a_layer_among_others_stays_a_problem(tmp_path: Path):
    rule, like = "{l}.{g|u} [_ m] -> gu [l (g|u) m] ; g=3, u=3", {"gu": jnp.zeros((4, 6, 2))}
    keys = {f"{n}.{part}": (3, 2) for n in range(3) for part in "gu"}
    assert planned(tmp_path, keys, like, rule).ok
    assert planned(tmp_path, {k: s for k, s in keys.items() if "u" not in k}, like, rule).ok  # one part of all of them
    assert planned(tmp_path, {k: s for k, s in keys.items() if k != "1.u"}, like, rule).missing == ("gu[1, 3:6]",)


def test_padding_of_a_stack_with_layers_to_come(tmp_path: Path):
    rule, like = "h.{l}.w [v d] -> w [l v[:3] d]", {"w": jnp.full((4, 5, 2), 7.0)}
    keys = {f"h.{n}.w": (3, 2) for n in range(2)}
    plan = planned(tmp_path, keys, like, rule)
    made = bridge.load(tmp_path / "y.safetensors", like, plan)
    expected = np.full((4, 5, 2), 7, F4)
    expected[:2, :3] = 1
    assert np.asarray(made["w"]).tobytes() == expected.tobytes()


def test_a_part_in_the_middle_and_a_place_of_a_stack(tmp_path: Path):
    like = {"a": jnp.full(6, 7.0), "s": jnp.full((3, 2), 7.0)}
    plan = planned(tmp_path, {"a": (2,), "s": (2,)}, like, "a [x] -> a [x[2:4]]", "s [...] -> s [n[1] ...]")
    made = bridge.load(tmp_path / "y.safetensors", like, plan)
    assert made["a"].tolist() == [7, 7, 1, 1, 7, 7]
    assert made["s"].tolist() == [[7, 7], [1, 1], [7, 7]]


def test_through_a_layout_that_flips(tmp_path: Path):
    keys = jax.random.split(jax.random.key(0), 3)
    like = eqx.filter_vmap(lambda key: eqx.nn.ConvTranspose1d(2, 2, 3, key=key))(keys)
    plan = planned(tmp_path, {f"{n}.weight": (2, 2, 3) for n in range(2)} | {f"{n}.bias": (2,) for n in range(2)}, like)
    made = bridge.load(tmp_path / "y.safetensors", like, plan)
    assert (made.weight[:2] == 1).all()
    assert (made.weight[2] == like.weight[2]).all()
    assert (made.bias[2] == like.bias[2]).all()


def test_a_sum_of_which_all_terms_are_there(tmp_path: Path):
    like = {"w": jnp.full((3, 2), 7.0)}
    keys = {f"{part}.{n}": (2,) for n in range(2) for part in "ab"}
    made = bridge.load(tmp_path / "y.safetensors", like, planned(tmp_path, keys, like, "a.{l} + b.{l} -> w"))
    assert made["w"].tolist() == [[2, 2], [2, 2], [7, 7]]
