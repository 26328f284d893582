"""A residual network named as torchvision's: no rules, its BatchNorms' state in its place, converted and back."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import bridge
from tests.model.contract import abstract, close, same_bits, save

pytestmark = pytest.mark.torch


class Block(eqx.Module):
    conv1: eqx.nn.Conv2d
    bn1: eqx.nn.BatchNorm
    conv2: eqx.nn.Conv2d
    bn2: eqx.nn.BatchNorm
    downsample: eqx.nn.Sequential | None

    def __init__(self, inputs, outputs, stride, mode, key):
        norm = lambda: eqx.nn.BatchNorm(outputs, "batch", momentum=0.9, mode=mode)  # noqa: E731
        self.conv1 = eqx.nn.Conv2d(inputs, outputs, 3, stride, 1, use_bias=False, key=key)
        self.bn1 = norm()
        self.conv2 = eqx.nn.Conv2d(outputs, outputs, 3, 1, 1, use_bias=False, key=key)
        self.bn2 = norm()
        other = eqx.nn.Conv2d(inputs, outputs, 1, stride, use_bias=False, key=key)
        self.downsample = eqx.nn.Sequential([other, norm()]) if stride > 1 else None

    def __call__(self, x, state):
        y, state = self.bn1(self.conv1(x), state)
        y, state = self.bn2(self.conv2(jax.nn.relu(y)), state)
        if self.downsample is not None:
            x, state = self.downsample(x, state)
        return jax.nn.relu(x + y), state


class ResNet(eqx.Module):
    conv1: eqx.nn.Conv2d
    bn1: eqx.nn.BatchNorm
    layer1: eqx.nn.Sequential
    layer2: eqx.nn.Sequential
    fc: eqx.nn.Linear

    def __init__(self, key, mode="batch"):
        self.conv1 = eqx.nn.Conv2d(3, 4, 3, 1, 1, use_bias=False, key=key)
        self.bn1 = eqx.nn.BatchNorm(4, "batch", momentum=0.9, mode=mode)
        self.layer1 = eqx.nn.Sequential([Block(4, 4, 1, mode, key), Block(4, 4, 1, mode, key)])
        self.layer2 = eqx.nn.Sequential([Block(4, 8, 2, mode, key), Block(8, 8, 1, mode, key)])
        self.fc = eqx.nn.Linear(8, 5, key=key)

    def __call__(self, x, state):
        x, state = self.bn1(self.conv1(x), state)
        x = jax.nn.relu(x)
        for layer in (*self.layer1.layers, *self.layer2.layers):
            x, state = layer(x, state)
        return self.fc(x.mean((1, 2))), state


class TorchBlock(torch.nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(outputs)
        self.conv2 = torch.nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = torch.nn.BatchNorm2d(outputs)
        other = torch.nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        self.downsample = torch.nn.Sequential(other, torch.nn.BatchNorm2d(outputs)) if stride > 1 else None

    def forward(self, x):
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class TorchResNet(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(3, 4, 3, 1, 1, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(4)
        self.layer1 = torch.nn.Sequential(TorchBlock(4, 4, 1), TorchBlock(4, 4, 1))
        self.layer2 = torch.nn.Sequential(TorchBlock(4, 8, 2), TorchBlock(8, 8, 1))
        self.fc = torch.nn.Linear(8, 5)

    def forward(self, x):
        x = self.layer2(self.layer1(torch.relu(self.bn1(self.conv1(x)))))
        return self.fc(x.mean((2, 3)))


@pytest.fixture(scope="module")
def trained():
    """A network that has seen some batches, so that its statistics are no one's default."""
    torch.manual_seed(0)
    module = TorchResNet()
    with torch.no_grad():
        for _ in range(3):
            module(torch.randn(4, 3, 8, 8))
    return module


def run(model, state, x):
    return jax.vmap(model, in_axes=(0, None), out_axes=(0, None), axis_name="batch")(x, state)


@pytest.mark.parametrize("mode", ["batch", "ema"])
def test_inference(mode, trained, tmp_path):
    model, state = bridge.load(save(trained, tmp_path), abstract(lambda key: ResNet(key, mode)))
    x = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)
    with torch.no_grad():
        wanted = trained.eval()(torch.from_numpy(x))
    close(run(eqx.nn.inference_mode(model), state, jnp.asarray(x))[0], wanted)


def test_converted_once_it_is_not_converted_again(trained, tmp_path):
    """A counter of Equinox' own in a converted file is not PyTorch's, whose name it has."""
    path, like = save(trained, tmp_path), abstract(ResNet)
    bridge.convert(path, tmp_path / "converted", like)
    model, state = bridge.load(tmp_path / "converted", like)
    same_bits((model, state), bridge.load(path, like))
    assert int(state.get(model.bn1.batch_counter)) == 2**30 + 3
    bridge.revert(tmp_path / "converted", tmp_path / "back.safetensors")
    assert bridge.diff(path, tmp_path / "back.safetensors").equal
