"""BatchNorm in both modes: its statistics live in the state, and must be right in further training too."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file as save_numpy
from safetensors.torch import save_file

import bridge
from tests.model.contract import Case, LayoutContract, abstract, close, random_module, save

BATCH = (7, 4)  # batch, channels


def layer(mode, **options):
    """PyTorch's momentum of 0.1 is Equinox' of 0.9."""
    return lambda key: eqx.nn.BatchNorm(4, "batch", mode=mode, momentum=0.9, **options)


class TestBatchNorm(LayoutContract):
    cases = (
        Case("batch", lambda: torch.nn.BatchNorm1d(4), layer("batch"), (BATCH,)),
        Case("batch, images", lambda: torch.nn.BatchNorm2d(4), layer("batch"), ((3, 4, 5, 5),)),
        Case(
            "batch, not affine",
            lambda: torch.nn.BatchNorm1d(4, affine=False),
            layer("batch", channelwise_affine=False),
            (BATCH,),
        ),
        Case("ema", lambda: torch.nn.BatchNorm1d(4), layer("ema"), (BATCH,)),
        Case(
            "ema, not affine",
            lambda: torch.nn.BatchNorm1d(4, affine=False),
            layer("ema", channelwise_affine=False),
            (BATCH,),
        ),
    )

    def call(self, layer, state, *args):
        return run(layer, state, *args, inference=True)[0]

    def may_be_lossy(self, key):
        """Mode "ema" counts no batches; a checkpoint of it says 0, or nothing."""
        return key.endswith("num_batches_tracked")

    @pytest.mark.torch
    def test_a_training_step_moves_the_statistics_as_pytorch_does(self, case: Case, tmp_path):
        module = random_module(case, 0)
        model, state = bridge.load(save(module, tmp_path), abstract(case.eqx))
        (x,) = self.inputs(case)
        with torch.no_grad():
            wanted = module.train()(torch.from_numpy(x))
        got, state = run(model, state, jnp.asarray(x), inference=False)
        if model.mode == "batch":  # mode "ema" normalises by the running statistics in training too
            close(got, wanted)
        # PyTorch's running variance is of a sample, n / (n - 1) of Equinox': the same once that is undone.
        n = x.size // x.shape[1]
        state_before = bridge.load(save(random_module(case, 0), tmp_path, "before"), abstract(case.eqx))[1]
        old = statistics(model, state_before)[1]
        mean, var = statistics(model, state)
        close(mean, module.running_mean)
        unbiased = 0.9 * old + (var - 0.9 * old) * n / (n - 1)
        close(unbiased, module.running_var)


def run(model, state, x, *, inference):
    one = lambda value, s: model(value, s, inference=inference)  # noqa: E731
    return jax.vmap(one, in_axes=(0, None), out_axes=(0, None), axis_name="batch")(x, state)


def statistics(model, state):
    """What inference would use."""
    if model.mode == "ema":
        return state.get(model.ema_state_index)
    mean, var = state.get(model.batch_state_index)
    scale = 1 - model.momentum ** state.get(model.batch_counter)
    return mean / scale, var / scale


@pytest.mark.torch
@pytest.mark.parametrize("tracked", [0, 1, 100])
def test_the_counter_lies_above_all_that_pytorch_counted(tracked, tmp_path):
    module = torch.nn.BatchNorm1d(4)
    module.num_batches_tracked.fill_(tracked)
    model, state = bridge.load(save(module, tmp_path), abstract(layer("batch")))
    assert int(state.get(model.batch_counter)) == 2**30 + tracked


@pytest.mark.torch
def test_a_count_that_does_not_fit_is_an_error(tmp_path):
    module = torch.nn.BatchNorm1d(4)
    module.num_batches_tracked.fill_(2**31)
    with pytest.raises(bridge.CheckpointError, match=r"'num_batches_tracked'.*does not fit into int32"):
        bridge.load(save(module, tmp_path), abstract(layer("batch")))


@pytest.mark.torch
@pytest.mark.parametrize("mode", ["batch", "ema"])
def test_old_checkpoints_count_no_batches(mode, tmp_path):
    weights = {k: v for k, v in torch.nn.BatchNorm1d(4).state_dict().items() if k != "num_batches_tracked"}
    save_file(weights, tmp_path / "old.safetensors")
    model, state = bridge.load(tmp_path / "old.safetensors", abstract(layer(mode)))
    if mode == "batch":
        assert int(state.get(model.batch_counter)) == 2**30
    else:
        assert not state.get(model.ema_first_time_index)


@pytest.mark.torch
def test_mode_batch_counts_on_from_what_pytorch_counted(tmp_path):
    module = random_module(TestBatchNorm.cases[0], 0)
    like = abstract(layer("batch"))
    plan = bridge.plan(save(module, tmp_path), like)
    assert plan.lossy == ()
    model, state = bridge.load(tmp_path / "model.safetensors", like, plan)
    state = run(model, state, jnp.ones(BATCH), inference=False)[1]
    bridge.save((model, state), tmp_path / "back.safetensors", plan)
    assert bridge.open(tmp_path / "back.safetensors")["num_batches_tracked"] == 101


@pytest.mark.torch
def test_mode_ema_counts_nothing(tmp_path):
    like = abstract(layer("ema"))
    plan = bridge.plan(save(random_module(TestBatchNorm.cases[3], 0), tmp_path), like)
    assert plan.lossy == (("num_batches_tracked", "used up by its layer: saved as 0"),)
    assert bridge.plan(tmp_path / "model.safetensors", like, plan).lossy == plan.lossy
    bridge.save(bridge.load(tmp_path / "model.safetensors", like), tmp_path / "back.safetensors", plan)
    count = bridge.open(tmp_path / "back.safetensors")["num_batches_tracked"]
    assert (count.dtype, count.shape, int(count)) == (np.int64, (), 0)


def three(one):
    """What becomes of one layer three times."""
    return lambda key: eqx.filter_vmap(one)(jax.random.split(key, 3))


def counters(path, shape, names=("num_batches_tracked",)):
    """Checkpoints whose counters have this shape, by writers that have no scalars."""
    tensors = {}
    for n, name in enumerate(names):
        prefix = name.removesuffix("num_batches_tracked")
        tensors |= {
            prefix + key: np.full(4, n, np.float32) for key in ("weight", "bias", "running_mean", "running_var")
        }
        tensors[name] = np.full(shape, 7 + n)
    save_numpy(tensors, path)
    return path


@pytest.mark.parametrize("mode", ["batch", "ema"])
@pytest.mark.parametrize("shape", [(), (1,)])
def test_a_counter_may_have_one_axis(mode, shape, tmp_path):
    path, like = counters(tmp_path / "model.safetensors", shape), abstract(layer(mode))
    plan = bridge.plan(path, like)
    assert plan.ok
    assert bridge.Plan.from_json(plan.to_json()) == plan == bridge.plan(path, like, plan.rules)
    loaded = bridge.load(path, like, plan)
    if mode == "batch":
        assert int(loaded[1].get(loaded[0].batch_counter)) == 2**30 + 7
        bridge.save(loaded, tmp_path / "by_plan.safetensors", plan)
        assert bridge.diff(tmp_path / "by_plan.safetensors", path).equal
    bridge.save(loaded, tmp_path / "back.safetensors")
    count = bridge.open(tmp_path / "back.safetensors")["num_batches_tracked"]
    assert (count.shape, int(count)) == ((), 7 if mode == "batch" else 0)


@pytest.mark.parametrize("shape", [(), (1,)])
def test_counters_of_one_axis_in_a_stack(shape, tmp_path):
    names = [f"bn.{n}.num_batches_tracked" for n in range(3)]
    path = counters(tmp_path / "model.safetensors", shape, names)
    like = eqx.filter_eval_shape(eqx.nn.make_with_state(Stack), jax.random.key(0))
    plan = bridge.plan(path, like)
    assert plan.ok, plan
    assert bridge.Plan.from_json(plan.to_json()) == plan
    model, state = bridge.load(path, like, plan)
    assert [int(count) - 2**30 for count in state.get(model.bn.batch_counter)] == [7, 8, 9]
    bridge.save((model, state), tmp_path / "back.safetensors", ["bn.{l}.** -> bn.**"])
    with bridge.open(tmp_path / "back.safetensors") as back:
        assert [(back[name].shape, int(back[name])) for name in names] == [((), 7), ((), 8), ((), 9)]
    bridge.save((model, state), tmp_path / "whole.safetensors")
    whole, state = bridge.load(tmp_path / "whole.safetensors", like)
    assert [int(count) - 2**30 for count in state.get(whole.bn.batch_counter)] == [7, 8, 9]


@pytest.mark.parametrize("shape", [(2,), (1, 1)])
def test_a_counter_of_another_shape_is_an_error(shape, tmp_path):
    path = counters(tmp_path / "model.safetensors", shape)
    plan = bridge.plan(path, abstract(layer("batch")))
    assert not plan.ok
    assert [found[:2] for found in plan.mismatched] == [("num_batches_tracked",) * 2]


class Stack(eqx.Module):
    bn: eqx.nn.BatchNorm

    def __init__(self, key):
        self.bn = three(layer("batch"))(key)
