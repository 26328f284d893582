"""BatchNorm in both modes: its statistics live in the state, and must be right in further training too."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
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
