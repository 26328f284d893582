"""Whole modules, pickled or TorchScript: what state_dict() gives, without their code."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch

from bridge import CheckpointError
from tests.torchfile.reading import assert_same, opened, tensors, values
from tests.torchfile.test_tensors import saved

pytestmark = pytest.mark.torch


class Block(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(3, 3)
        self.none = None
        self.scale = torch.nn.Parameter(torch.randn(3))
        self.register_parameter("absent", None)
        self.register_buffer("kept", torch.randn(2))
        self.register_buffer("passing", torch.randn(2), persistent=False)
        self.plain = torch.randn(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) * self.scale


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = torch.nn.ModuleList([Block(), Block()])
        self.norm = torch.nn.BatchNorm1d(3)
        self.act = torch.nn.ReLU()
        self.tied = self.blocks[0]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return self.act(self.norm(x))


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "stream"])
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
def test_a_pickled_module(zipped: bool, protocol: int, tmp_path: Path):
    """The stream's ids of classes carry their source as text."""
    net = Net()
    path = saved(tmp_path / "x.pt", net, zipped=zipped, protocol=protocol)
    assert_same(values(path, modules=True), net.state_dict())
    with pytest.raises(CheckpointError, match=r"holds a whole module, of '.*Net', .* modules=True"):
        opened(path)


def test_well_known_modules(tmp_path: Path):
    for n, net in enumerate([torch.nn.LSTM(3, 4, 2), torch.nn.TransformerEncoderLayer(8, 2), torch.nn.Conv2d(1, 2, 3)]):
        assert_same(values(saved(tmp_path / f"{n}.pt", net), modules=True), net.state_dict())


def test_modules_in_a_dict(tmp_path: Path):
    """As trainers of detectors save them."""
    net, ema = Net(), Net()
    path = saved(tmp_path / "x.pt", {"epoch": 1, "model": net, "ema": ema, "optimizer": None})
    assert opened(path, modules=True).roots == {"model": len(net.state_dict()), "ema": len(ema.state_dict())}
    assert_same(values(path, "ema", modules=True), ema.state_dict())


def test_state_dicts_open_with_modules_too(tmp_path: Path):
    state = Net().state_dict()
    assert_same(values(saved(tmp_path / "x.pt", state), modules=True), state)


def test_a_module_whose_state_dict_has_hooks(tmp_path: Path):
    net = torch.nn.Linear(2, 2)
    net.register_state_dict_post_hook(hook)
    path = saved(tmp_path / "x.pt", net)
    with pytest.raises(CheckpointError, match="changed by hooks"):
        opened(path, modules=True)


def hook(module: object, state: object, prefix: str, meta: object) -> None: ...


@pytest.mark.parametrize("trace", [False, True], ids=["scripted", "traced"])
def test_torchscript(trace: bool, tmp_path: Path):
    net = Net().eval()
    path = tmp_path / "x.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        script = torch.jit.trace(net, torch.randn(2, 3)) if trace else torch.jit.script(net)
        script.save(str(path))  # pyright: ignore[reportAttributeAccessIssue]
        expected = torch.jit.load(path).state_dict()
    found = values(path, modules=True)
    assert sorted(found) == sorted(expected)
    assert_same({key: found[key] for key in expected}, expected)
    with pytest.raises(CheckpointError, match="is a TorchScript archive"):
        tensors(path)
