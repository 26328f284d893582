"""Keys of files of torch.save that cannot be read, and keys that are tied: two names of the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
import pytest
import torch

import bridge
from tests.errors.promised import text_of
from tests.stream.views import counted
from tests.torchfile.test_tensors import saved

pytestmark = pytest.mark.torch

# ---- keys that cannot be read


def refused(tmp_path: Path) -> Path:
    state = {f"h.{n}.w": torch.randn(3, 4) for n in range(3)}
    state["h.1.w"] = state["h.1.w"].to_sparse()
    return saved(tmp_path / "x.pth", state | {"b": torch.ones(2).to_sparse(), "s": torch.tensor(1.0).to_sparse()})


WHOLE = {"w": jax.ShapeDtypeStruct((3, 3, 4), np.float32)}
STACK = ["h.{l}.w -> w"]


@pytest.mark.parametrize("rules", [STACK, ["h.{l}.w [a b] -> w [l a b]"]], ids=["plain", "axes"])
def test_a_plan_that_uses_one(rules: list[str], tmp_path: Path):
    path = refused(tmp_path)
    plan = bridge.plan(path, WHOLE, [*rules, "b -> _"], allow_unexpected=["s"])
    assert not plan.ok
    assert (plan.missing, plan.unexpected, plan.mismatched) == ((), (), ())
    with pytest.raises(bridge.PlanError) as caught:
        bridge.load(path, WHOLE, plan)
    assert str(caught.value) == (
        f"1 problem between '{path}' (5 keys) and dict (1 leaf)\n  conflict    h.1.w\n              "
        + text_of("tensor: one that cannot be read").replace("'s'", "'h.1.w'").replace("x.pth", str(path))
    )


def test_a_leaf_of_any_shape_that_one_would_fill(tmp_path: Path):
    path = refused(tmp_path)
    like = {"s": jax.ShapeDtypeStruct((), np.float32), "b": jax.ShapeDtypeStruct((2,), np.float32)}
    plan = bridge.plan(path, like, ["h.** -> _"])
    assert [conflict.subject for conflict in plan.problems.conflicts] == ["b", "s"]
    assert plan.mismatched == ()
    assert plan.keys == ()


def test_a_key_that_nobody_takes_is_unexpected(tmp_path: Path):
    plan = bridge.plan(refused(tmp_path), {}, ["h.** -> _"])
    assert sorted(plan.unexpected) == ["b", "s"]
    assert not plan.problems.conflicts


def test_a_plan_that_drops_them(tmp_path: Path):
    path = refused(tmp_path)
    rules = ["h.1.w -> _", "{b|s} -> _", "h.{l[0,2]}.w -> w"]
    plan = bridge.plan(path, None, rules)
    assert plan.ok, str(plan)
    expected = torch.load(path, weights_only=True)
    for given in (rules, plan, bridge.Plan.from_json(plan.to_json())):
        loaded = bridge.load(path, None, given)
        assert np.asarray(loaded["w"][1]).tobytes() == expected["h.2.w"].numpy().tobytes()


def test_diff_cannot_compare_them(tmp_path: Path):
    path = refused(tmp_path)
    with pytest.raises(bridge.CheckpointError, match=r"key 'h\.1\.w' in .* is sparse"):
        bridge.diff(path, path)


# ---- ties


def test_ties(tmp_path: Path):
    """Two names of one storage: two keys. The plan says so of one that is left over."""
    weight = torch.nn.Parameter(torch.randn(5, 4))
    path = saved(tmp_path / "x.pth", {"embed.weight": weight, "head.weight": weight})
    plan = bridge.plan(path, LIKE)
    assert plan.unexpected == ("head.weight",)
    assert "  unexpected  head.weight   float32[5, 4]\n" in str(plan)
    assert "tied: the same bytes as key 'embed.weight'\n" in str(plan)
    loaded = bridge.load(path, LIKE, allow_unexpected=["head.weight"])
    assert np.asarray(loaded["embed"]["weight"]).tobytes() == weight.detach().numpy().tobytes()


LIKE = {"embed": {"weight": jax.ShapeDtypeStruct((5, 4), np.float32)}}
TIE = "head.weight -> embed.weight ; tie=true"


@pytest.mark.parametrize("rules", [TIE, "head.weight [a b] -> embed.weight [a b] ; tie=true"])
def test_tied_bytes_are_read_once(rules: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    weight = torch.randn(4, 5).t()
    path = saved(tmp_path / "x.pth", {"embed.weight": weight, "head.weight": weight})
    with bridge.open(path) as ckpt:
        plan = bridge.plan(ckpt, LIKE, rules)
        with counted(monkeypatch) as lengths:
            loaded = bridge.load(ckpt, LIKE, plan)
        assert sum(lengths) == plan.nbytes == 80
    assert np.asarray(loaded["embed"]["weight"]).tobytes() == weight.contiguous().numpy().tobytes()
    bridge.convert(path, tmp_path / "native", LIKE, rules)
    bridge.revert(tmp_path / "native", tmp_path / "back.safetensors")
    assert bridge.diff(path, tmp_path / "back.safetensors").equal


@pytest.mark.parametrize(("head", "equal"), [("clone", True), ("another", False), ("turned", False)])
def test_ties_of_other_bytes_are_compared(head: str, equal: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    weight = torch.randn(5, 4)
    other = {"clone": weight.clone(), "another": weight + 1, "turned": weight.view(4, 5).t()}[head]
    path = saved(tmp_path / "x.pth", {"embed.weight": weight, "head.weight": other})
    with bridge.open(path) as ckpt:
        plan = bridge.plan(ckpt, LIKE, TIE)
        assert plan.nbytes == 160
        if equal:
            bridge.load(ckpt, LIKE, plan)
            return
        with pytest.raises(bridge.CheckpointError, match=r"'head\.weight' in 'x\.pth' is tied to a leaf"):
            bridge.load(ckpt, LIKE, plan)


def test_a_shared_layer(tmp_path: Path):
    """`eqx.nn.Shared` keeps one of two; the other key is a tie by itself."""

    class Tied(eqx.Module):
        shared: eqx.nn.Shared

        def __init__(self, key: Any):
            layers = eqx.nn.Embedding(5, 4, key=key), eqx.nn.Linear(4, 5, use_bias=False, key=key)
            self.shared = eqx.nn.Shared(layers, lambda pair: pair[1].weight, lambda pair: pair[0].weight)

    weight = torch.randn(5, 4)
    path = saved(tmp_path / "x.pth", {"shared.0.weight": weight, "shared.1.weight": weight})
    like = eqx.filter_eval_shape(Tied, jax.random.key(0))
    plan = bridge.plan(path, like)
    assert plan.nbytes == weight.nbytes
    embedding, _ = bridge.load(path, like).shared()
    assert np.asarray(embedding.weight).tobytes() == weight.numpy().tobytes()


# ---- whole modules


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("script", [False, True], ids=["pickled", "TorchScript"])
def test_whole_modules(script: bool, tmp_path: Path):
    """By the names and values of `state_dict()`."""
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last), torch.nn.BatchNorm2d(4))
    path = tmp_path / "x.pt"
    if script:
        torch.jit.script(net).save(str(path))
    else:
        torch.save(net, path)
    wanted = net.state_dict()
    with pytest.raises(bridge.CheckpointError, match="modules=True"):
        bridge.load(path)
    loaded = bridge.load(path, modules=True)
    assert sorted(loaded) == sorted(wanted)
    for key, tensor in wanted.items():
        expected = tensor.int() if tensor.dtype == torch.int64 else tensor
        assert np.asarray(loaded[key]).tobytes() == expected.contiguous().numpy().tobytes(), key
    bridge.convert(path, tmp_path / "native", modules=True)
    bridge.revert(tmp_path / "native", tmp_path / "back.safetensors")
    with bridge.open(path, modules=True) as ckpt:
        assert list(ckpt) == list(wanted)
        assert bridge.diff(ckpt, tmp_path / "back.safetensors").equal
