"""A plan given as rules: taken as it is where headers, model and question are the same, else proven again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import SingleDeviceSharding
from safetensors.numpy import save_file

import bridge
from bridge.api import planned as api_planned

N, OUT, IN = 3, 4, 5
RULES = ["bert.counts -> counts", "bert.layer.{l}.** -> layers.**", "bert.spare -> _"]


class Model(eqx.Module):
    layers: eqx.nn.Linear
    counts: Any

    def __init__(self, key: jax.Array, *, width: int = IN, counts: type = jnp.int32) -> None:
        self.layers = eqx.filter_vmap(lambda key: eqx.nn.Linear(width, OUT, key=key))(jax.random.split(key, N))
        self.counts = jnp.zeros(7, counts)


def like(**options: Any) -> Model:
    return eqx.filter_eval_shape(lambda key: Model(key, **options), jax.random.key(0))


def write(path: Path, seed: int = 0, **more: np.ndarray) -> Path:
    rng = np.random.default_rng(seed)
    tensors = {f"bert.layer.{n}.weight": rng.standard_normal((OUT, IN), np.float32) for n in range(N)}
    tensors |= {f"bert.layer.{n}.bias": rng.standard_normal(OUT, np.float32) for n in range(N)}
    tensors |= {"bert.counts": rng.integers(0, 9, 7), "bert.spare": np.zeros(2, np.float32)}
    save_file(tensors | more, path)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "model.safetensors")


@pytest.fixture
def proofs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The names of checkpoints that something was proven for."""
    made: list[str] = []
    make = api_planned.make_plan

    def counted(*arguments: Any, source: str, **named: Any) -> bridge.Plan:
        made.append(source)
        return make(*arguments, source=source, **named)

    monkeypatch.setattr(api_planned, "make_plan", counted)
    return made


def same(a: Any, b: Any) -> bool:
    return all(
        x.dtype == y.dtype and np.asarray(x).tobytes() == np.asarray(y).tobytes()
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def test_nothing_is_proven_twice(path: Path, tmp_path: Path, proofs: list[str]):
    plan = bridge.plan(path, like(), RULES)
    by_rules = bridge.load(path, like(), RULES)
    other = bridge.load(write(tmp_path / "tuned.safetensors", seed=1), like(), RULES)
    proofs.clear()
    assert same(bridge.load(path, like(), plan), by_rules)
    again = bridge.plan(path, like(), plan)
    assert again == plan
    assert (again.texts, again.nbytes, again.peak_nbytes) == (plan.texts, plan.nbytes, plan.peak_nbytes)
    tuned = bridge.plan(tmp_path / "tuned.safetensors", like(), plan)
    assert tuned.source == str(tmp_path / "tuned.safetensors")
    assert same(bridge.load(tmp_path / "tuned.safetensors", like(), tuned), other)
    concrete = Model(jax.random.key(1))
    assert same(bridge.load(path, concrete, plan), by_rules)
    assert proofs == []


def test_where_the_leaves_go_is_no_part_of_the_proof(path: Path, proofs: list[str]):
    device = SingleDeviceSharding(jax.devices()[0])
    plan = bridge.plan(path, like(), RULES, sharding=device)
    proofs.clear()
    assert bridge.load(path, like(), plan).counts.committed
    loaded = bridge.load(path, like(), bridge.plan(path, like(), RULES), sharding=device)
    assert loaded.layers.weight.committed
    assert len(proofs) == 1


CHANGES: dict[str, dict[str, Any]] = {
    "another dtype": {"dtype": jnp.bfloat16},
    "more may be missing": {"allow_missing": ["counts"]},
    "more may be left over": {"allow_unexpected": ["bert.spare"]},
    "another function": {"allow_missing": {"counts": lambda name, spec: np.zeros(spec.shape, spec.dtype)}},
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_question_is_proven_again(change: str, path: Path, proofs: list[str]):
    plan = bridge.plan(path, like(), RULES)
    proofs.clear()
    assert same(bridge.load(path, like(), plan, **CHANGES[change]), bridge.load(path, like(), RULES, **CHANGES[change]))
    assert len(proofs) == 2


def test_other_headers_are_proven_again(path: Path, tmp_path: Path, proofs: list[str]):
    plan = bridge.plan(path, like(), RULES)
    proofs.clear()
    for name, more in {
        "a tensor of another shape": {"bert.layer.1.weight": np.zeros((IN, OUT), np.float32)},
        "another dtype": {"bert.layer.1.weight": np.zeros((OUT, IN), np.int8)},
        "one key more": {"bert.more": np.zeros(3, np.float32)},
    }.items():
        other = write(tmp_path / f"{name}.safetensors", **more)
        with pytest.raises(bridge.PlanError) as by_plan:
            bridge.load(other, like(), plan)
        with pytest.raises(bridge.PlanError) as by_rules:
            bridge.load(other, like(), RULES)
        for lists in ("missing", "unexpected", "mismatched"):
            assert getattr(by_plan.value, lists) == getattr(by_rules.value, lists)
    assert len(proofs) == 6


def test_another_model_is_proven_again(path: Path, proofs: list[str]):
    plan = bridge.plan(path, like(), RULES)
    proofs.clear()
    for other in (like(width=IN + 1), like(counts=jnp.float32), None, {"counts": like().counts}):
        assert bridge.plan(path, other, plan).ok == bridge.plan(path, other, RULES).ok
    assert len(proofs) == 8


def test_a_plan_of_64_bits_is_proven_again_where_jax_has_32(path: Path, proofs: list[str]):
    with jax.enable_x64(True):
        plan = bridge.plan(path, like(), RULES, dtype="checkpoint")
        assert plan.leaves["counts"].dtype == np.int64
        proofs.clear()
        assert bridge.load(path, like(), plan).counts.dtype == np.int64
        assert proofs == []
    assert bridge.load(path, like(), plan).counts.dtype == np.int32
    assert len(proofs) == 1


def test_a_plan_with_problems_says_them_again(path: Path, proofs: list[str]):
    plan = bridge.plan(path, like(), RULES[:2])
    proofs.clear()
    with pytest.raises(bridge.PlanError) as caught:
        bridge.load(path, like(), plan)
    assert caught.value.unexpected == ("bert.spare",)
    assert proofs == []


def test_a_plan_of_a_converted_checkpoint_serves_it(path: Path, tmp_path: Path, proofs: list[str]):
    plan = bridge.plan(path, like(), RULES)
    bridge.convert(path, tmp_path / "converted", like(), plan)
    converted = bridge.plan(tmp_path / "converted", like())
    proofs.clear()
    by_rules = bridge.load(path, like(), plan)
    assert same(bridge.load(tmp_path / "converted", like(), converted), by_rules)
    assert proofs == []
    assert same(bridge.load(tmp_path / "converted", like(), plan), by_rules)  # by its own rules
    assert len(proofs) == 1


def test_from_json_too(path: Path, proofs: list[str]):
    tree = {"counts": like().counts, "layers": {"weight": like().layers.weight, "bias": like().layers.bias}}
    plan = bridge.Plan.from_json(bridge.plan(path, tree, RULES).to_json())
    proofs.clear()
    assert same(bridge.load(path, tree, plan), bridge.load(path, tree, RULES))
    assert len(proofs) == 2
