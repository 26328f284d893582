"""Which dict of a checkpoint is meant; what lies beside the weights; arrays of numpy."""

from __future__ import annotations

import argparse
import enum
import pickle
from collections import Counter, OrderedDict, defaultdict
from pathlib import Path, PurePosixPath
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

from bridge import CheckpointError
from bridge.torchfile import Inline
from tests.torchfile.reading import assert_same, opened, tensors, values
from tests.torchfile.test_tensors import saved

pytestmark = pytest.mark.torch


class Color(enum.Enum):
    RED = 1


def net() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))


def trained() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    model = net()
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    return model, optimizer


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "stream"])
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_training_checkpoint(zipped: bool, protocol: int, tmp_path: Path):
    """One dict of weights; the optimizer's state hangs under numbers."""
    model, optimizer = trained()
    checkpoint = {
        "epoch": 3,
        "args": argparse.Namespace(lr=0.1, path=PurePosixPath("a/b")),
        "color": Color.RED,
        "state_dict": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "history": defaultdict(list, loss=[1.0, 2.0]),
        "counts": Counter("abc"),
        "set": {1, 2},
        "dtype": torch.float32,
        "device": torch.device("cpu"),
        "rng": [torch.get_rng_state()],
        "numpy": np.random.default_rng(0).bit_generator.state,
        "best": np.float64(0.5),
    }
    path = saved(tmp_path / "x.ckpt", checkpoint, zipped=zipped, protocol=protocol)
    assert opened(path).roots == {"state_dict": 7}
    assert opened(path).metadata == {"epoch": "3"}
    assert_same(values(path), model.state_dict())


def test_lightning(tmp_path: Path):
    model, optimizer = trained()
    callback = {"best_model_score": torch.tensor(0.1), "best_model_path": "x"}
    checkpoint = {
        "epoch": 1,
        "global_step": 2,
        "pytorch-lightning_version": "2.1.0",
        "state_dict": model.state_dict(),
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {"ModelCheckpoint": callback},
        "optimizer_states": [optimizer.state_dict()],
    }
    path = saved(tmp_path / "x.ckpt", checkpoint)
    with pytest.raises(CheckpointError) as e:
        tensors(path)
    assert "root='state_dict' (7 tensors), root='callbacks.ModelCheckpoint' (1 tensor)" in str(e.value)
    assert_same(values(path, "state_dict"), model.state_dict())


def test_ema(tmp_path: Path):
    model, ema = net().state_dict(), net().state_dict()
    path = saved(tmp_path / "x.pt", {"model": model, "model_ema": ema, "again": ema})
    assert opened(path).roots == {"model": 7, "model_ema": 7}
    assert_same(values(path, "model_ema"), ema)
    assert_same(values(path, "again"), ema)
    everything = {
        f"{root}.{key}": t
        for root, sd in (("model", model), ("model_ema", ema), ("again", ema))
        for key, t in sd.items()
    }
    assert_same(values(path, ""), everything)


def test_a_part_of_a_tree(tmp_path: Path):
    parts = {"a": {"x": {"w": torch.ones(2)}, "y": {"w": torch.zeros(3)}}, "b": {"w": torch.ones(1)}}
    path = saved(tmp_path / "x.pt", parts)
    assert list(values(path, "a")) == ["x.w", "y.w"]
    assert list(values(path, "a.y")) == ["w"]
    assert list(values(path, "")) == ["a.x.w", "a.y.w", "b.w"]
    with pytest.raises(CheckpointError, match=r"no tensors under root='a\.z'"):
        tensors(path, "a.z")


def test_numbers_beside_tensors_are_skipped_and_listed(tmp_path: Path):
    state = {
        "w": torch.ones(2),
        "steps": 3,
        "rate": 0.1,
        "name": "x",
        "none": None,
        "on": True,
        "list": [torch.ones(1)],
        "dict": {"a": 1},
    }
    state |= {
        "tuple": (1,),
        "set": {1},
        "dtype": torch.float16,
        "device": torch.device("cpu"),
        "np": np.float32(1),
        "size": torch.Size([1]),
    }
    found = tensors(saved(tmp_path / "x.pt", state))
    assert list(found.entries) == ["w"]
    assert found.skipped == {
        "steps": "a number", "rate": "a number", "name": "text", "none": "None", "on": "a bool", "list": "a list",
        "dict": "a dict", "tuple": "a tuple", "set": "a set", "dtype": "the name of a class or function",
        "device": "a device", "np": "a number of numpy's", "size": "a tuple",
    }  # fmt: skip


def test_other_keys_than_text_are_left(tmp_path: Path):
    path = saved(tmp_path / "x.pt", {"w": torch.ones(2), 1: torch.ones(3), (1, 2): 4, None: 5, 2.0: 6, b"b": 7})
    assert list(values(path)) == ["w"]


ARRAYS: dict[str, Any] = {
    "f4": np.arange(6, dtype="<f4").reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "big": np.arange(4, dtype=">i4"),
    "bool": np.array([True, False]),
    "scalar": np.array(3, np.int8),
    "empty": np.zeros((0, 3), np.float16),
    "complex": np.array([1 + 2j], np.complex64),
    "u8": np.arange(256, dtype=np.uint8),
    "bf16": np.arange(3).astype(ml_dtypes.bfloat16),
    "fp8": np.arange(3).astype(ml_dtypes.float8_e4m3fn),
}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "stream"])
def test_arrays_of_numpy(protocol: int, zipped: bool, tmp_path: Path):
    state = {
        "w": torch.ones(2),
        **ARRAYS,
        "objects": np.array([None]),
        "text": np.array(["a"]),
        "parts": np.zeros(1, "i4,f4"),
    }
    found = tensors(saved(tmp_path / "x.pt", state, zipped=zipped, protocol=protocol))
    assert list(found.entries) == ["w", *ARRAYS]
    assert list(found.refused) == ["objects", "text", "parts"]
    for key, array in ARRAYS.items():
        entry = found.entries[key]
        assert isinstance(entry, Inline)
        assert entry.values.dtype == array.dtype
        assert entry.values.shape == array.shape
        assert entry.values.tobytes() == array.tobytes()


def test_arrays_in_dicts_beside_tensors_are_no_tensors(tmp_path: Path):
    """The state of numpy's random generator, say; only root='' asks for them."""
    path = saved(tmp_path / "x.pt", {"w": torch.ones(2), "rng": {"key": np.arange(3), "args": argparse.Namespace()}})
    assert list(tensors(path).entries) == ["w"]
    path = saved(tmp_path / "x.pt", {"w": torch.ones(2), "rng": {"key": np.arange(3)}})
    assert list(tensors(path).entries) == ["w"]
    assert list(tensors(path, "").entries) == ["w", "rng.key"]


def test_arrays_alone_are_a_root(tmp_path: Path):
    path = saved(tmp_path / "x.pt", {"weights": {"a": np.ones(3)}, "epoch": 1})
    assert opened(path).roots == {"weights": 1}
    assert list(values(path)) == ["a"]


def test_containers_that_pytorch_itself_refuses_or_not(tmp_path: Path):
    for state in (OrderedDict(w=torch.ones(2)), defaultdict(int, w=torch.ones(2)), {"w": torch.ones(2)}):
        assert list(values(saved(tmp_path / "x.pt", state))) == ["w"]


def test_metadata_of_state_dicts_is_no_value(tmp_path: Path):
    state = net().state_dict()
    assert state._metadata  # pyright: ignore[reportAttributeAccessIssue]
    found = tensors(saved(tmp_path / "x.pt", state))
    assert list(found.entries) == list(state)
    assert found.skipped == {}


class Opener:
    """What a hostile object is: its unpickling makes a file."""

    def __reduce__(self) -> Any:
        return (open, ("CANARY", "w"))


def test_nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    path = saved(tmp_path / "x.pt", {"w": torch.ones(2), "x": Opener()})
    with pytest.raises(CheckpointError, match=r"asks for '_?io\.open', which torch\.load would run"):
        tensors(path)
    assert not (tmp_path / "CANARY").exists()
    pickle.loads(pickle.dumps(Opener())).close()  # noqa: S301 - this test can fail
    assert (tmp_path / "CANARY").exists()
