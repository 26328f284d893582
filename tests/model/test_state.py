"""A model's state: how its leaves are called, and what a pair of model and state must be."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

import bridge
from bridge.model.template import take_apart
from tests.model.contract import abstract


class Block(eqx.Module):
    """Two layers with state, and state of its own."""

    bn: eqx.nn.BatchNorm
    norm: eqx.nn.SpectralNorm
    calls: eqx.nn.StateIndex

    def __init__(self, key, mode="batch"):
        self.bn = eqx.nn.BatchNorm(4, "batch", mode=mode)
        self.norm = eqx.nn.SpectralNorm(eqx.nn.Linear(4, 3, use_bias=False, key=key), "weight", key=key)
        self.calls = eqx.nn.StateIndex({"count": jnp.zeros((), jnp.int32), "sums": (jnp.zeros(2),)})


class Net(eqx.Module):
    """The stack comes before the list, whose state markers sort otherwise."""

    stack: Block
    blocks: list[Block]

    def __init__(self, key):
        keys = jax.random.split(key, 3)
        self.stack = eqx.filter_vmap(Block)(keys)
        self.blocks = [Block(keys[0]), Block(keys[1])]


OWN = {
    "bn.weight": (4,),
    "bn.bias": (4,),
    "norm.layer.weight": (3, 4),
    "bn.num_batches_tracked": (),
    "bn.running_mean": (4,),
    "bn.running_var": (4,),
    "norm.uv_index.0": (3,),
    "norm.uv_index.1": (4,),
    "calls.count": (),
    "calls.sums.0": (2,),
}


def filled(shapes, path):
    """A checkpoint that holds under each name an array like no other."""
    rng = np.random.default_rng(0)
    counters = ("count", "counter", "num_batches_tracked")
    arrays = {
        name: rng.integers(1, 99, shape, np.int32) if name.endswith(counters) else rng.normal(size=shape).astype("f4")
        for name, shape in shapes.items()
    }
    save_file(arrays, path)
    return arrays


def test_names_are_the_models_own():
    for like in (abstract(Block), eqx.nn.make_with_state(Block)(jax.random.key(0))):
        leaves = take_apart(like).template.leaves
        assert {name: spec.shape for name, spec in leaves.items()} == OWN


def test_names_in_lists_and_stacks():
    leaves = take_apart(abstract(Net)).template.leaves
    wanted = {f"stack.{name}": (3, *shape) for name, shape in OWN.items()}
    wanted |= {f"blocks.{n}.{name}": shape for n in range(2) for name, shape in OWN.items()}
    assert {name: spec.shape for name, spec in leaves.items()} == wanted


def test_every_entry_arrives_at_its_index(tmp_path):
    wanted = {f"stack.{n}.{name}": shape for n in range(3) for name, shape in OWN.items()}
    wanted |= {f"blocks.{n}.{name}": shape for n in range(2) for name, shape in OWN.items()}
    arrays = filled(wanted, tmp_path / "net.safetensors")
    net, state = bridge.load(tmp_path / "net.safetensors", abstract(Net))
    for prefix, block, pick in [("blocks.0", net.blocks[0], ...), ("blocks.1", net.blocks[1], ...), *(
        (f"stack.{n}", net.stack, n) for n in range(3)
    )]:  # fmt: skip
        mean, var = state.get(block.bn.batch_state_index)
        assert np.array_equal(mean[pick], arrays[f"{prefix}.bn.running_mean"])
        assert np.array_equal(var[pick], arrays[f"{prefix}.bn.running_var"])
        assert state.get(block.bn.batch_counter)[pick] == 2**30 + arrays[f"{prefix}.bn.num_batches_tracked"]
        u, v = state.get(block.norm.uv_index)
        assert np.array_equal(u[pick], arrays[f"{prefix}.norm.uv_index.0"])
        assert np.array_equal(v[pick], arrays[f"{prefix}.norm.uv_index.1"])
        entry = state.get(block.calls)
        assert entry["count"][pick] == arrays[f"{prefix}.calls.count"]
        assert np.array_equal(entry["sums"][0][pick], arrays[f"{prefix}.calls.sums.0"])
    # A usable state: it can be set, and then is used up.
    assert int(state.set(net.blocks[0].calls, state.get(net.blocks[1].calls)).get(net.blocks[0].calls)["count"]) > 0
    with pytest.raises(ValueError, match="old state"):
        state.get(net.blocks[0].calls)


def test_keystrs_own_spelling_is_an_alias(tmp_path):
    spelled = {
        "bn.running_mean": "bn.batch_state_index.0",
        "bn.running_var": "bn.batch_state_index.1",
        "bn.num_batches_tracked": "bn.batch_counter",
    }
    arrays = filled({spelled.get(name, name): shape for name, shape in OWN.items()}, tmp_path / "own.safetensors")
    model, state = bridge.load(tmp_path / "own.safetensors", abstract(Block))
    assert np.array_equal(state.get(model.bn.batch_state_index)[1], arrays["bn.batch_state_index.1"])
    # By Equinox' own name it is Equinox' own counter.
    assert state.get(model.bn.batch_counter) == arrays["bn.batch_counter"]


def test_the_template_stays_usable(tmp_path):
    filled(OWN, tmp_path / "own.safetensors")
    like = eqx.nn.make_with_state(Block)(jax.random.key(0))
    first = bridge.load(tmp_path / "own.safetensors", like)
    second = bridge.load(tmp_path / "own.safetensors", like)
    model, state = first
    state.set(model.calls, state.get(model.calls))
    model, state = second
    assert int(state.get(model.calls)["count"]) > 0
    assert int(like[1].get(like[0].calls)["count"]) == 0


# ---- what no pair of model and state is


@pytest.mark.parametrize("like", [Block(jax.random.key(0)), abstract(Block)[0]], ids=["raw", "without its state"])
def test_a_model_without_its_state(like, tmp_path):
    filled(OWN, tmp_path / "own.safetensors")
    with pytest.raises(bridge.PlanError) as caught:
        bridge.load(tmp_path / "own.safetensors", like)
    assert str(caught.value) == (
        "Block keeps state at 'bn.batch_counter' (and 3 more), such as the running statistics of a BatchNorm, "
        "but its state was not given. Pass the pair (model, state) that eqx.nn.make_with_state gives."
    )


def test_a_state_that_was_used_before():
    model, state = eqx.nn.make_with_state(Block)(jax.random.key(0))
    state.set(model.calls, state.get(model.calls))
    with pytest.raises(bridge.PlanError, match="the state was used before, and a State is single use"):
        take_apart((model, state))


def test_another_models_state():
    (model, _), (_, state) = abstract(Block), abstract(Net)
    with pytest.raises(bridge.PlanError, match=r"not the state of this model: it has no entry for 'bn.batch_counter'"):
        take_apart((model, state))


def test_more_state_than_the_model_points_to():
    net, state = abstract(Net)
    with pytest.raises(bridge.PlanError, match=r"has 21 arrays.* point to 14 of them\. Pass \(model, state.substate"):
        take_apart((net.blocks, state))
    assert len(take_apart((net.blocks, state.substate(net.blocks))).arrays) == 20


def test_a_state_elsewhere_in_the_tree():
    model, state = abstract(Block)
    with pytest.raises(bridge.PlanError, match=r"'state' is an equinox State .* Pass the pair \(model, state\)"):
        take_apart({"model": model, "state": state})


def test_initial_values_that_nobody_deleted_stay(tmp_path):
    filled(OWN, tmp_path / "own.safetensors")
    model = Block(jax.random.key(0))
    loaded, state = bridge.load(tmp_path / "own.safetensors", (model, eqx.nn.State(model)))
    assert int(loaded.calls.init["count"]) == 0
    assert int(state.get(loaded.calls)["count"]) > 0


def test_a_name_that_two_leaves_would_have(tmp_path):
    class Odd(eqx.Module):
        bn: eqx.nn.BatchNorm
        layers: dict

        def __init__(self, key):
            self.bn = Shadowed(4, "batch", mode="batch")
            self.layers = {}

    with pytest.raises(bridge.PlanError, match=r"leaf 'bn.running_mean' appears twice in Odd"):
        take_apart(abstract(Odd))


class Shadowed(eqx.nn.BatchNorm):
    running_mean: jax.Array

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.running_mean = jnp.zeros(4)
