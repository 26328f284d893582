"""Leaves that may be missing, keys that may be left over."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

import bridge
from tests.errors.promised import text_of


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save_file({"w": np.ones(3, np.float32), "extra.n": np.ones(2, np.float32)}, tmp_path / "model.safetensors")
    return tmp_path


CONCRETE = {"w": jnp.zeros(3), "rope": {"cos": jnp.full((2,), 7.0)}}
ABSTRACT = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), CONCRETE)
ALLOW = {"allow_missing": ["rope.**"], "allow_unexpected": ["extra.*"]}


def test_the_template_keeps_its_own_values(path: Path):
    loaded = bridge.load(path, CONCRETE, **ALLOW)
    assert np.asarray(loaded["rope"]["cos"]).tolist() == [7, 7]
    assert np.asarray(loaded["w"]).tolist() == [1, 1, 1]
    assert isinstance(loaded["rope"]["cos"], jax.Array)
    assert bridge.plan(path, CONCRETE, **ALLOW).ok


def test_an_abstract_leaf_has_no_value_to_keep(path: Path, monkeypatch: pytest.MonkeyPatch):
    assert bridge.plan(path, ABSTRACT, **ALLOW).ok  # names and shapes meet: the value is the load's concern
    with bridge.open(path) as ckpt:
        monkeypatch.setattr(type(ckpt), "byte_source", lambda *_: pytest.fail("weights were read"))
        with pytest.raises(bridge.PlanError) as caught:
            bridge.load(ckpt, ABSTRACT, **ALLOW)
    assert str(caught.value) == text_of("load: a leaf that may be missing and has no value").replace(
        "'b'", "'rope.cos'"
    )


def test_a_function_makes_what_is_missing(path: Path):
    def make(name: str, spec: bridge.Spec) -> jax.Array:
        assert (name, spec.shape, spec.dtype) == ("rope.cos", (2,), np.dtype(np.float32))
        return jnp.arange(2.0)

    allow = {"allow_missing": {"rope.*": make}, "allow_unexpected": ["extra.*"]}
    assert np.asarray(bridge.load(path, ABSTRACT, **allow)["rope"]["cos"]).tolist() == [0, 1]
    plan = bridge.plan(path, ABSTRACT, **allow)
    assert np.asarray(bridge.load(path, ABSTRACT, plan)["rope"]["cos"]).tolist() == [0, 1]


def test_a_function_that_makes_something_else_is_an_error(path: Path):
    allow = {"allow_missing": {"rope.*": lambda name, spec: jnp.zeros(3)}, "allow_unexpected": ["extra.*"]}
    with pytest.raises(bridge.PlanError) as caught:
        bridge.load(path, ABSTRACT, **allow)
    problem = "leaf 'rope.cos': the function for 'rope.*' gave float32[3], the model has float32[2]"
    assert caught.value.statement == problem


def test_what_is_not_named_stays_an_error(path: Path):
    with pytest.raises(bridge.PlanError) as caught:
        bridge.load(path, CONCRETE)
    assert (caught.value.missing, caught.value.unexpected) == (("rope.cos",), ("extra.n",))


def test_numbers_functions_and_prng_keys_stay_as_they_are(tmp_path: Path):
    save_file({"w": np.ones(3, np.float32)}, tmp_path / "model.safetensors")
    key = jax.random.key(3)
    loaded = bridge.load(tmp_path, {"w": jnp.zeros(3), "n": 5, "f": jnp.tanh, "key": key, "s": "text"})
    assert (loaded["n"], loaded["f"], loaded["s"]) == (5, jnp.tanh, "text")
    assert loaded["key"] is key
