"""What every layer layout keeps: PyTorch's weights in the Equinox layer compute what PyTorch computes.

A new layout is a subclass with a table of cases, each a pair of layers and the shapes of their input.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.tree_util as jtu
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import bridge

COUNT = 3  # layers of a stack


class Case(NamedTuple):
    """A layer of PyTorch, its twin (made from a key), and the shapes of the arguments of a call."""

    name: str
    torch: Callable[[], torch.nn.Module]
    eqx: Callable[[jax.Array], Any]
    shapes: tuple[tuple[int, ...], ...]
    rtol: float = 1e-5


class Layers(eqx.Module):
    """A model that has its layers under one name: a list of them, or one stack."""

    layers: Any


class LayoutContract:
    """Subclass it and give `cases`; `call` and `call_torch` where a layer is called in a way of its own."""

    cases: ClassVar[tuple[Case, ...]]

    def call(self, layer: Any, state: Any, *args: jax.Array) -> Any:
        """The layer's output at inference."""
        return layer(*args)

    def call_torch(self, module: torch.nn.Module, *args: torch.Tensor) -> Any:
        """The same of PyTorch's layer, in `eval` mode."""
        return module(*args)

    def inputs(self, case: Case) -> list[np.ndarray]:
        rng = np.random.default_rng(5)
        return [rng.normal(size=shape).astype(np.float32) for shape in case.shapes]

    # ---- the contract

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "case" in metafunc.fixturenames:
            cases = metafunc.cls.cases
            metafunc.parametrize("case", cases, ids=[case.name for case in cases])

    @pytest.mark.torch
    def test_computes_what_pytorch_computes(self, case: Case, tmp_path: Path):
        module = random_module(case, 0)
        model, state = bridge.load(save(module, tmp_path), abstract(case.eqx))
        inputs = self.inputs(case)
        got = self.call(model, state, *map(jax.numpy.asarray, inputs))
        with torch.no_grad():
            wanted = self.call_torch(module.eval(), *map(torch.from_numpy, inputs))
        close(got, wanted, case.rtol)

    @pytest.mark.torch
    def test_concrete_templates_load_as_abstract_ones_do(self, case: Case, tmp_path: Path):
        path = save(random_module(case, 0), tmp_path)
        like = abstract(case.eqx)
        concrete = jtu.tree_map(ones, like)
        same_bits(bridge.load(path, concrete), bridge.load(path, like))

    @pytest.mark.torch
    def test_lists_and_stacks_of_it_load_as_it_does_alone(self, case: Case, tmp_path: Path):
        modules = [random_module(case, seed) for seed in range(COUNT)]
        alone = [bridge.load(save(module, tmp_path, f"{n}"), abstract(case.eqx)) for n, module in enumerate(modules)]
        path = save(torch.nn.ModuleDict({"layers": torch.nn.ModuleList(modules)}), tmp_path, "all")
        model, state = bridge.load(path, abstract(lambda key: Layers([case.eqx(k) for k in keys(key)])))
        for layer, (own, own_state) in zip(model.layers, alone, strict=True):
            same_bits((layer, state.substate(layer)), (own, own_state))
        stacked = bridge.load(path, abstract(lambda key: Layers(eqx.filter_vmap(case.eqx)(keys(key)))))
        for number, own in enumerate(alone):
            same_bits([leaf[number] for leaf in arrays(stacked)], arrays(own))

    @pytest.mark.torch
    def test_the_plans_rules_give_the_same_plan(self, case: Case, tmp_path: Path):
        modules = torch.nn.ModuleList([random_module(case, seed) for seed in range(COUNT)])
        path = save(torch.nn.ModuleDict({"module": modules}), tmp_path)
        like = abstract(lambda key: Layers(eqx.filter_vmap(case.eqx)(keys(key))))
        plan = bridge.plan(path, like, ["module.** -> layers.**"])
        assert plan.ok, str(plan)
        assert bridge.plan(path, like, plan.rules) == plan

    @pytest.mark.torch
    def test_the_way_back(self, case: Case, tmp_path: Path):
        """By the plan: all keys, exact ones bit for bit, and what cannot be exact loads as the same layer again."""
        modules = torch.nn.ModuleList([random_module(case, seed) for seed in range(COUNT)])
        path = save(torch.nn.ModuleDict({"layers": modules}), tmp_path)
        like = abstract(lambda key: Layers(eqx.filter_vmap(case.eqx)(keys(key))))
        plan = bridge.plan(path, like)
        model = bridge.load(path, like, plan)
        bridge.save(model, tmp_path / "back.safetensors", plan)
        before, after = load_file(path), load_file(tmp_path / "back.safetensors")
        assert before.keys() == after.keys()
        lossy = {key for key, _ in plan.lossy}
        assert all(key in lossy or torch.equal(before[key], after[key]) for key in before)
        assert all(self.may_be_lossy(key) for key in lossy)
        same_bits(bridge.load(tmp_path / "back.safetensors", like), model)

    def may_be_lossy(self, key: str) -> bool:
        """Whether a key is one that no leaf holds as it was."""
        return False

    @pytest.mark.torch
    def test_pytorch_reads_what_rules_write(self, case: Case, tmp_path: Path):
        """`** -> **` needs no checkpoint: the layouts know what PyTorch calls each parameter."""
        module = random_module(case, 0)
        model = bridge.load(save(module, tmp_path), abstract(case.eqx))
        bridge.save(model, tmp_path / "back.safetensors", "** -> **")
        back = self.renamed(load_file(tmp_path / "back.safetensors"))
        twin = random_module(case, 1)
        found = twin.load_state_dict(back, strict=False)
        assert not found.unexpected_keys
        assert not [key for key in found.missing_keys if not self.may_be_lossy(key)]
        inputs = [torch.from_numpy(array) for array in self.inputs(case)]
        with torch.no_grad():
            got, wanted = self.call_torch(twin.eval(), *inputs), self.call_torch(module.eval(), *inputs)
        close(jtu.tree_map(lambda t: t.numpy(), got), wanted)

    def renamed(self, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The names that this layer of PyTorch has, where Equinox' goes by others too."""
        return weights


def keys(key: jax.Array) -> jax.Array:
    return jax.random.split(key, COUNT)


def abstract(make: Callable[[jax.Array], Any]) -> Any:
    """The pair `(model, state)`, without values."""
    return eqx.filter_eval_shape(eqx.nn.make_with_state(make), jax.random.key(0))


def ones(leaf: Any) -> Any:
    """An array in the place of a spec."""
    return jax.numpy.asarray(np.ones(leaf.shape, leaf.dtype)) if isinstance(leaf, jax.ShapeDtypeStruct) else leaf


def random_module(case: Case, seed: int) -> torch.nn.Module:
    """PyTorch's layer with no number where it was: what starts as 0 or 1 would hide a swap."""
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the old weight_norm and spectral_norm
        module = case.torch()
    for name, value in module.state_dict().items():
        if name.endswith("num_batches_tracked"):
            value.fill_(100 + seed)
        elif name.endswith("running_var"):
            value.copy_(0.5 + torch.rand_like(value))
        else:
            value.add_(0.1 * torch.randn_like(value))
    return module


def save(module: torch.nn.Module, folder: Path, name: str = "model") -> Path:
    path = folder / f"{name}.safetensors"
    save_file({key: value.contiguous() for key, value in module.state_dict().items()}, path)
    return path


def arrays(tree: Any) -> list[Any]:
    return [leaf for leaf in jtu.tree_leaves(tree) if eqx.is_array(leaf)]


def same_bits(a: Any, b: Any) -> None:
    a, b = arrays(a), arrays(b)
    assert len(a) == len(b) > 0
    for x, y in zip(a, b, strict=True):
        assert isinstance(x, jax.Array)
        assert (x.dtype, x.shape) == (y.dtype, y.shape)
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def close(got: Any, wanted: Any, rtol: float = 1e-5) -> None:
    """Equal up to float32's rounding, relative to the largest value: sums in another order differ that much."""
    got, wanted = jtu.tree_leaves(got), jtu.tree_leaves(jtu.tree_map(lambda t: t.numpy(), wanted))
    assert len(got) == len(wanted) > 0
    for x, y in zip(got, wanted, strict=True):
        assert x.shape == y.shape
        assert np.abs(y).max() > 0
        np.testing.assert_allclose(np.asarray(x), y, rtol=rtol, atol=rtol * float(np.abs(y).max()))
