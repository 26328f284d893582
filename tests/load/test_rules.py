"""Explicit rules through to the arrays: one checkpoint, templates of different build."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

import bridge

N, OUT, IN = 3, 4, 4


@pytest.fixture
def tensors() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    keys = [f"bert.encoder.layer.{n}.{part}.weight" for n in range(N) for part in ("query", "key")]
    return {key: rng.standard_normal((OUT, IN), np.float32) for key in [*keys, "bert.embeddings.weight"]}


@pytest.fixture
def path(tmp_path: Path, tensors: dict[str, np.ndarray]) -> Path:
    save_file(tensors | {"bert.position_ids": np.arange(7)}, tmp_path / "model.safetensors")
    return tmp_path


RULES = [
    "bert.position_ids -> _",
    "bert.encoder.layer.{l}.*.weight -> layers.{l}.*.w",
    "bert.** -> **",
]


def like(*, stacked: bool) -> dict:
    def array(*shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    if stacked:
        layers = {part: {"w": array(N, OUT, IN)} for part in ("query", "key")}
    else:
        layers = [{part: {"w": array(OUT, IN)} for part in ("query", "key")} for _ in range(N)]
    return {"layers": layers, "embeddings": {"weight": array(OUT, IN)}}


def stack(tensors: dict[str, np.ndarray], part: str) -> np.ndarray:
    return np.stack([tensors[f"bert.encoder.layer.{n}.{part}.weight"] for n in range(N)])


def test_the_same_rules_serve_a_list_and_a_stack(path: Path, tensors: dict[str, np.ndarray]):
    stacked = bridge.load(path, like(stacked=True), RULES)
    listed = bridge.load(path, like(stacked=False), RULES)
    for part in ("query", "key"):
        assert np.asarray(stacked["layers"][part]["w"]).tobytes() == stack(tensors, part).tobytes()
        for n in range(N):
            expected = tensors[f"bert.encoder.layer.{n}.{part}.weight"]
            assert np.asarray(listed["layers"][n][part]["w"]).tobytes() == expected.tobytes()


def test_axes_transpose(path: Path, tensors: dict[str, np.ndarray]):
    rules = ["bert.encoder.layer.{l}.query.weight [o i] -> q [o l i]", "** -> _"]
    loaded = bridge.load(path, {"q": jax.ShapeDtypeStruct((OUT, N, IN), jnp.float32)}, rules)
    assert np.asarray(loaded["q"]).tobytes() == stack(tensors, "query").transpose(1, 0, 2).tobytes()


def test_without_a_template_the_rules_name_the_leaves(path: Path, tensors: dict[str, np.ndarray]):
    leaves = bridge.load(path, None, ["bert.encoder.layer.{l}.*.weight -> *", "bert.** -> **"])
    assert set(leaves) == {"query", "key", "embeddings.weight", "position_ids"}
    assert np.asarray(leaves["query"]).tobytes() == stack(tensors, "query").tobytes()
    assert leaves["position_ids"].dtype == jnp.int32  # int64, checked value by value: JAX runs without x64


def test_rules_from_toml(path: Path, tmp_path: Path):
    (tmp_path / "rules.toml").write_text(f"rules = {RULES!r}".replace("'", '"'))
    by_path = bridge.load(path, like(stacked=True), tmp_path / "rules.toml")
    by_text = bridge.load(path, like(stacked=True), str(tmp_path / "rules.toml"))
    rules = bridge.load_rules(tmp_path / "rules.toml")
    assert [str(rule) for rule in rules] == RULES
    by_rules = bridge.load(path, like(stacked=True), rules)
    for loaded in (by_path, by_text):
        assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), loaded, by_rules))


def test_a_plan_serves_as_rules(path: Path):
    plan = bridge.plan(path, like(stacked=True), RULES)
    assert plan.ok
    assert bridge.plan(path, like(stacked=True), plan) == plan
    assert bridge.plan(path, like(stacked=True), plan.rules).rules == plan.rules
    loaded = bridge.load(path, like(stacked=True), plan)
    again = bridge.load(path, like(stacked=True), RULES)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), loaded, again))


def test_a_key_sent_nowhere_names_the_rule_that_sent_it(path: Path):
    with pytest.raises(bridge.PlanError, match=r"sent to 'nowhere' by the rule 'bert\.position_ids"):
        bridge.load(path, like(stacked=True), ["bert.position_ids -> nowhere", *RULES[1:]])
