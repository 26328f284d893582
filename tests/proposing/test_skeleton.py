"""A model to start from: what is printed imports, and its plan is ok."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

import bridge
from bridge.api.skeleton import skeleton
from bridge.proposing.tree import Modules, Stack, TensorNode, field_name, module_tree
from tests.proposing.trees import Shapes, layers, specs

ATTENTION = {f"self.{name}.{part}": (8, 8)[: 2 if part == "weight" else 1] for name in ("query", "key") for part in ("weight", "bias")}  # fmt: skip
MODELS: dict[str, Shapes] = {
    "a stack": {"embed_tokens.weight": (20, 8), **layers(3, "layers.{}.", {"up.weight": (16, 8), "norm.weight": (8,)})},
    "words of Python": {"class.weight": (4, 3), **layers(2, "h.{}.", ATTENTION)},
    "unlike layers": {"net.0.weight": (4, 3), "net.0.bias": (4,), "net.1.weight": (5, 4)},
    "numbers with gaps": {"net.0.weight": (4, 3), "net.2.weight": (5, 4)},
    "stages": {
        **layers(2, "s.0.b.{}.", {"c.weight": (4, 4, 3, 3)}),
        **layers(3, "s.1.b.{}.", {"c.weight": (8, 8, 3, 3)}),
    },
    "experts": {f"h.{n}.e.{e}.w1.weight": (6, 4) for n in range(2) for e in range(3)},
    "turned": layers(
        2, "h.{}.", {"c_attn.weight": (8, 24), "c_attn.bias": (24,), "c_proj.weight": (8, 8), "c_proj.bias": (8,)}
    ),
    "buffers": {"a.weight": (4, 3), "rotary_emb.inv_freq": (4,)},
    "an array with others below": {"a": (4,), "a.b.weight": (4, 3), "x y.weight": (2, 2)},
    "arrays in a list": {"p.0": (4,), "p.1": (4,)},
}


def made(text: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(text, "skeleton.py", "exec"), names)
    return names


@pytest.mark.parametrize("name", MODELS)
def test_what_is_printed_imports_and_fits(tmp_path: Path, name: str) -> None:
    path = tmp_path / "model.safetensors"
    save_file({key: np.zeros(shape, np.float32) for key, shape in MODELS[name].items()}, path)
    names = made(skeleton(path))
    plan = bridge.plan(path, eqx.filter_eval_shape(names["make"]), names["RULES"])
    assert plan.ok, str(plan)
    loaded = bridge.load(path, eqx.filter_eval_shape(names["make"]), names["RULES"])
    with pytest.raises(NotImplementedError):
        loaded(None)


def test_layers_that_are_alike_are_one_class_and_a_stack(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({key: np.zeros(shape, np.float32) for key, shape in MODELS["a stack"].items()}, path)
    text = skeleton(path)
    assert "class Layer(eqx.Module):\n    norm: eqx.nn.RMSNorm\n    up: eqx.nn.Linear\n" in text
    assert "    layers: Layer  # stacked\n" in text
    assert "        # layers.{}: norm, up\n        raise NotImplementedError\n" in text
    assert made(text)["RULES"] == ["layers.{l}.** -> layers.**"]
    shapes = {leaf.shape for leaf in jax.tree.leaves(eqx.filter_eval_shape(made(text)["make"]))}
    assert shapes == {(20, 8), (3, 16, 8), (3, 8)}


def test_a_matrix_that_is_the_other_way_round_is_no_linear_layer(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({key: np.zeros(shape, np.float32) for key, shape in MODELS["turned"].items()}, path)
    assert "eqx.nn.Linear" not in skeleton(path)


def test_trees() -> None:
    root = module_tree(specs(MODELS["stages"]))
    (stages,) = root.fields.values()
    assert isinstance(stages, Modules)
    first = stages.modules[0].fields["b"]
    assert isinstance(first, Stack)
    assert (first.count, first.module.path) == (2, ("s", "0", "b", "{}"))
    assert stages.modules[1].sizes == (3, 8, 8, 3, 3)
    assert isinstance(module_tree(specs({"a": (2,)})).fields["a"], TensorNode)


@pytest.mark.parametrize(("segment", "name"), [("q", "q"), ("self", "self_"), ("class", "class_"), ("1x1", "n1x1"), ("x y", "x_y"), ("", "value")])  # fmt: skip
def test_names_of_fields(segment: str, name: str) -> None:
    assert field_name(segment) == name
