"""Adapters on bases of every kind: quantised, of torch.save, far away, spread over devices."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save, save_file

import bridge
from bridge.source.ranged import RangedFile
from tests.adapters.write import adapter, peft
from tests.hub.clients import talking
from tests.hub.repo import whole
from tests.place.test_sharding import run
from tests.quantized.loads import KINDS, layers

CASES = Path(__file__).parent / "cases"
LORA = "adapter_model.safetensors"


def floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_quantised_then_merged(kind: str, dtype: Any, tmp_path: Path) -> None:
    """As a base would be that stored the values in float32: nothing is rounded before the sum."""
    source = layers(tmp_path / "base", kind, 2)
    lora = adapter(tmp_path / "lora", peft({f"h.{n}.up": (floats(4, 384), floats(256, 4)) for n in range(2)}))
    wide = {key: np.asarray(values) for key, values in bridge.load(source, dtype=jnp.float32).items()}
    save_file(wide, tmp_path / "wide.safetensors")
    expected = bridge.load(tmp_path / "wide.safetensors", adapters=lora, dtype=dtype)
    plan = bridge.plan(source, adapters=lora, dtype=dtype)
    merged = bridge.load(source, rules=plan, adapters=lora)
    for key, values in expected.items():
        assert np.asarray(merged[key]).tobytes() == np.asarray(values).tobytes()
    assert "h.{0..1}.up.weight += 1.0 · B @ A (r=4)" in str(plan)
    (reason,) = {lossy.reason for lossy in plan.lossy if lossy.key in plan.merged}
    assert "so quantization_config has to leave config.json; merged with an adapter: saved as it is merged" in reason


def test_codes_that_are_kept_are_not_merged(tmp_path: Path) -> None:
    source = layers(tmp_path / "base", "gptq", 1)
    lora = adapter(tmp_path / "lora", peft({"h.0.up": (floats(4, 384), floats(256, 4))}))
    plan = bridge.plan(source, adapters=lora, quantized="keep")
    (conflict,) = plan.problems.conflicts
    assert "'h.0.up.weight': the base has no such key" in conflict.text


@pytest.mark.torch
def test_a_base_that_torch_saved(tmp_path: Path) -> None:
    """Also of tensors that are stored transposed."""
    import torch

    tensors = {key: torch.from_numpy(value) for key, value in load_file(CASES / "base" / "model.safetensors").items()}
    tensors = {key: value.t().contiguous().t() if "q_proj.w" in key else value for key, value in tensors.items()}
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    merged, expected = (bridge.load(source, adapters=CASES / "plain") for source in (tmp_path, CASES / "base"))
    assert all(np.asarray(merged[key]).tobytes() == np.asarray(expected[key]).tobytes() for key in expected)


@pytest.fixture
def store() -> Iterator[Any]:
    """Base and adapter as objects of a store, streamed."""
    fs = fsspec.filesystem("memory")
    for path in (*CASES.glob("base/*"), *CASES.glob("plain/*")):
        fs.pipe_file(f"/far/{path.parent.name}/{path.name}", path.read_bytes())
    yield fs
    fs.rm("/far", recursive=True)


@pytest.mark.parametrize("base", ["memory://far/base", str(CASES / "base")])
def test_an_adapter_from_far_away_is_read_once(base: str, store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    before = RangedFile.readinto

    def counted(self: RangedFile, buffers: Any, offset: int) -> None:
        if self.name.endswith(LORA):
            read.append(sum(buffer.nbytes for buffer in buffers))
        before(self, buffers, offset)

    expected = bridge.load(CASES / "base", adapters=CASES / "plain")
    plain = bridge.plan(base, adapters=CASES / "plain")
    plan = bridge.plan(base, adapters="memory://far/plain")
    size = (CASES / "plain" / LORA).stat().st_size
    assert plan.peak_nbytes == plain.peak_nbytes + size
    monkeypatch.setattr(RangedFile, "readinto", counted)
    merged = bridge.load(base, adapters="memory://far/plain")
    assert all(np.asarray(merged[key]).tobytes() == np.asarray(expected[key]).tobytes() for key in expected)
    assert size <= sum(read) <= 2 * size + (16 << 10)


def test_an_adapter_of_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A plan fetches no weights of it, a load the one file."""
    tensors = save(load_file(CASES / "plain" / LORA))
    said = (CASES / "plain" / "adapter_config.json").read_bytes()
    with talking(monkeypatch, tmp_path / "cache") as hub:
        hub.add("org/lora", {LORA: tensors, "adapter_config.json": said, "README.md": b"a lora"})
        assert bridge.plan(CASES / "base", adapters=["org/lora"]).ok
        assert whole(hub) == []
        merged = bridge.load(CASES / "base", adapters=["org/lora"])
        assert whole(hub) == [tensors]
    expected = bridge.load(CASES / "base", adapters=CASES / "plain")
    assert all(np.asarray(merged[key]).tobytes() == np.asarray(expected[key]).tobytes() for key in expected)


def test_beside_a_model_the_adapter_is_meant(tmp_path: Path) -> None:
    """A trainer writes both into one folder."""
    save_file({"m.weight": np.zeros((3, 2), np.float32)}, tmp_path / "model.safetensors")
    adapter(tmp_path, peft({"m": (np.ones((4, 2), "f4"), np.ones((3, 4), "f4"))}))
    assert np.asarray(bridge.load(tmp_path, adapters=tmp_path)["m.weight"]).tolist() == [[4.0, 4.0]] * 3


def test_a_folder_that_holds_none(tmp_path: Path) -> None:
    with pytest.raises(bridge.CheckpointError, match="holds no adapter"):
        bridge.plan(CASES / "base", adapters=tmp_path)


def test_eight_devices(tmp_path: Path) -> None:
    env = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    run([sys.executable, "-W", "error", "-m", "tests.adapters.on_devices", str(tmp_path)], env)


def test_the_peak_is_predicted(tmp_path: Path) -> None:
    run([sys.executable, "-W", "error", "-m", "tests.adapters.peaks", str(tmp_path)], dict(os.environ))


def test_a_model_by_its_config(tmp_path: Path) -> None:
    model = bridge.models.from_pretrained(CASES / "base", adapters=[CASES / "plain"])
    plain = bridge.models.from_pretrained(CASES / "base")
    expected = bridge.load(CASES / "base", adapters=[CASES / "plain"])
    bridge.save(model, tmp_path / "merged", bridge.models.llama.rules(model.config))
    with bridge.open(tmp_path / "merged") as ckpt:
        for key, values in expected.items():
            assert ckpt[key].tobytes() == np.asarray(values).tobytes()
    assert type(model) is type(plain)
