"""The seed case: layers of a checkpoint into a list of modules or into one stacked module, with no rules at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

import bridge


class Stacked(eqx.Module):
    """All layers as one vmapped `Linear`: its weight is f32[n, 10, 10]."""

    layers: eqx.nn.Linear

    def __init__(self, n: int, key: jax.Array):
        make = eqx.filter_vmap(lambda key: eqx.nn.Linear(10, 10, use_bias=False, key=key))
        self.layers = make(jax.random.split(key, n))


class Listed(eqx.Module):
    """One `Linear` a layer."""

    layers: list[eqx.nn.Linear]

    def __init__(self, n: int, key: jax.Array):
        self.layers = [eqx.nn.Linear(10, 10, use_bias=False, key=k) for k in jax.random.split(key, n)]


def weights(n: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(n)
    return {f"layers.{i}.weight": rng.standard_normal((10, 10), np.float32) for i in range(n)}


def written(folder: Path, tensors: dict[str, np.ndarray]) -> Path:
    path = folder / "model.safetensors"
    save_file(tensors, path)
    return path


def scattered(folder: Path, tensors: dict[str, np.ndarray], files: int) -> Path:
    """The tensors dealt out to several files, in no helpful order, with an index."""
    keys = sorted(tensors, key=lambda key: hash(key[::-1]) % 97)
    weight_map = {key: f"model-{n % files + 1:05}-of-{files:05}.safetensors" for n, key in enumerate(keys)}
    for file in set(weight_map.values()):
        save_file({key: tensors[key] for key in keys if weight_map[key] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


def layer(model: Stacked | Listed, number: int) -> np.ndarray:
    layers = model.layers
    return np.asarray(layers[number].weight if isinstance(layers, list) else layers.weight[number])


def concrete(kind: type, n: int) -> Stacked | Listed:
    return kind(n, jax.random.key(1))


def abstract(kind: type, n: int) -> Stacked | Listed:
    return eqx.filter_eval_shape(kind, n, jax.random.key(1))


@pytest.mark.parametrize("make", [concrete, abstract])
@pytest.mark.parametrize("kind", [Stacked, Listed])
@pytest.mark.parametrize("n", [1, 3, 12])
def test_layers_land_in_numeric_order(tmp_path: Path, make: Callable, kind: type, n: int):
    tensors = weights(n)
    model = bridge.load(written(tmp_path, tensors), make(kind, n))
    assert isinstance(model, kind)
    for number in range(n):
        assert layer(model, number).tobytes() == tensors[f"layers.{number}.weight"].tobytes()


@pytest.mark.parametrize("kind", [Stacked, Listed])
def test_scattered_over_files_with_an_index(tmp_path: Path, kind: type):
    tensors = weights(12)
    model = bridge.load(scattered(tmp_path, tensors, files=5), abstract(kind, 12))
    for number in range(12):
        assert layer(model, number).tobytes() == tensors[f"layers.{number}.weight"].tobytes()


def test_a_stack_is_one_array_of_jax(tmp_path: Path):
    model = bridge.load(written(tmp_path, weights(3)), abstract(Stacked, 3))
    assert isinstance(model.layers.weight, jax.Array)
    assert model.layers.weight.shape == (3, 10, 10)
    assert model.layers.weight.dtype == jnp.float32
    assert model.layers.in_features == 10


def test_one_report_names_everything_that_is_wrong(tmp_path: Path):
    tensors = weights(12)
    del tensors["layers.3.weight"]
    tensors["layers.5.weight"] = np.zeros((10, 11), np.float32)
    tensors["extra"] = np.zeros(3, np.float32)
    path = written(tmp_path, tensors)
    with pytest.raises(bridge.PlanError) as caught:
        bridge.load(path, abstract(Stacked, 12))
    error = caught.value
    assert error.missing == ("layers.weight[3]",)
    assert error.unexpected == ("extra",)
    ((leaf, key, expected, got),) = error.mismatched
    assert (leaf, key, expected.shape, got.shape) == ("layers.weight[5]", "layers.5.weight", (10, 10), (10, 11))
    told = str(error).splitlines(keepends=True)
    assert "".join(line for line in told if "allow_unexpected" not in line) == (
        f"3 problems between '{path}' (12 keys) and Stacked (1 leaf)\n"
        "  missing     layers.weight[3]   no key 'layers.3.weight'   float32[10, 10]\n"
        "  unexpected  extra   float32[3]\n"
        "  mismatched  layers.weight[5]   needs (10, 10), 'layers.5.weight' is (10, 11)   float32"
    )


def test_a_list_reports_the_same(tmp_path: Path):
    tensors = weights(12)
    del tensors["layers.3.weight"]
    tensors["layers.5.weight"] = np.zeros((10, 11), np.float32)
    tensors["extra"] = np.zeros(3, np.float32)
    with pytest.raises(bridge.PlanError) as caught:
        bridge.load(written(tmp_path, tensors), abstract(Listed, 12))
    assert caught.value.missing == ("layers.3.weight",)
    assert caught.value.unexpected == ("extra",)
    assert [row[0] for row in caught.value.mismatched] == ["layers.5.weight"]


def test_a_plan_says_the_same_without_raising(tmp_path: Path):
    tensors = weights(4)
    del tensors["layers.0.weight"]
    plan = bridge.plan(written(tmp_path, tensors), abstract(Stacked, 4))
    assert not plan.ok
    assert plan.missing == ("layers.weight[0]",)


def test_no_key_is_read_where_the_plan_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = written(tmp_path, weights(2) | {"extra": np.zeros(3, np.float32)})
    with bridge.open(path) as ckpt:
        monkeypatch.setattr(type(ckpt), "byte_source", lambda *_: pytest.fail("weights were read"))
        with pytest.raises(bridge.PlanError):
            bridge.load(ckpt, abstract(Stacked, 2))
