"""Quantised checkpoints saved, converted, compared and shown, by the public functions and by the commands."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bridge
from bridge.cli.main import main
from tests.quantized.loads import BF16, CASES, KINDS, NAMES, expected, folder, int4
from tests.stream.views import same


@pytest.mark.parametrize("case", NAMES)
def test_saved(case: str, tmp_path: Path):
    """As logical keys, in the dtype of the model; the report says what config.json may no longer say."""
    plan = bridge.plan(CASES / case, None)
    model = bridge.load(CASES / case, None, plan)
    report = bridge.save(model, tmp_path / "saved", plan)
    shutil.copy(CASES / case / "config.json", tmp_path / "saved" / "config.json")
    told = dict(report.left_out)
    assert told.keys() == expected(case).keys()
    assert all("quantization_config has to leave config.json" in reason for reason in told.values())
    same(bridge.load(tmp_path / "saved", None), model)
    assert bridge.diff(CASES / case, tmp_path / "saved", values=True).equal
    assert not bridge.diff(CASES / case, tmp_path / "saved").equal


@pytest.mark.parametrize("quantized", ["dequantize", "keep"])
@pytest.mark.parametrize("case", NAMES)
def test_converted_and_reverted(case: str, quantized: str, tmp_path: Path):
    """The way back is the file to the byte: packed originals are kept beside dequantised leaves."""
    bridge.convert(CASES / case, tmp_path / "converted", None, quantized=quantized)
    same(bridge.load(tmp_path / "converted", None), bridge.load(CASES / case, None, quantized=quantized))
    bridge.revert(tmp_path / "converted", tmp_path / "back")
    back, stored = (path / "model.safetensors" for path in (tmp_path / "back", CASES / case))
    assert back.read_bytes() == stored.read_bytes()
    kept = sum(path.stat().st_size for path in (tmp_path / "converted").iterdir())
    assert (kept > 1.5 * stored.stat().st_size) == (quantized == "dequantize")


def test_diff_compares_what_is_stored_or_what_it_means(tmp_path: Path):
    """A code and its scale changed so that the values stay."""
    tensors = int4(np.random.default_rng(0), 128, 256, "m")
    one = folder(tmp_path / "one", tensors, KINDS["int4"][1], torch_dtype="bfloat16")
    with bridge.open(one) as ckpt:
        values = ckpt.quantized["m.weight"].read()
    two = folder(tmp_path / "two", {"m.weight": values}, None)
    assert not bridge.diff(one, two).equal
    assert bridge.diff(one, two, values=True).equal
    values[3, 4] += np.array(1, BF16)
    three = folder(tmp_path / "three", {"m.weight": values}, None)
    (differing,) = bridge.diff(one, three, values=True).differing
    assert (differing.key, differing.count) == ("m.weight", 1)


def test_inspect(capsys: pytest.CaptureFixture[str]):
    source = str(CASES / "fp8-block-llama-f32")
    assert main(["inspect", source]) == 0
    assert "280,840 parameters, fp8 in blocks of 128 x 128, 292.6 kB" in capsys.readouterr().out
    assert main(["inspect", source, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["parameters"] == 280_840
    assert document["quantized"].keys() == expected("fp8-block-llama-f32").keys()
    assert document["quantized"]["model.layers.0.mlp.up_proj.weight"] == {
        "format": "fp8 in blocks of 128 x 128",
        "bits": 8,
        "dtype": "BF16",
        "shape": [194, 136],
        "parts": ["model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight_scale_inv"],
    }
    assert document["tensors"]["model.layers.0.mlp.up_proj.weight"]["dtype"] == "F8_E4M3"


def test_inspect_shows_what_it_cannot_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    source = folder(tmp_path / "q", int4(np.random.default_rng(0), 16, 128, "m"), {"quant_method": "hqq"})
    assert main(["inspect", str(source)]) == 0
    shown = capsys.readouterr().out
    assert "HQQ is not read" in shown
    assert "m.weight_packed" in shown
    assert main(["inspect", str(source), "--json"]) == 0
    assert "HQQ is not read" in json.loads(capsys.readouterr().out)["problem"]


class Held(eqx.Module):
    w: jax.Array


def held() -> Held:
    return Held(jnp.zeros((16, 256)))


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    source = str(folder(tmp_path / "q", int4(np.random.default_rng(0), 16, 256, "m"), None))
    (tmp_path / "rules.toml").write_text('rules = ["m.weight -> w"]')
    words = [source, "--like", "tests.quantized.test_writing:held", "--rules", str(tmp_path / "rules.toml")]
    said = ["--quantized", json.dumps(KINDS["int4"][1])]
    assert main(["plan", *words, *said]) == 0
    assert "int4[16, 256] in groups of 128 -> w float32[16, 256]" in capsys.readouterr().out
    assert main(["plan", *words, "--quantized", "keep"]) == 1
    assert main(["plan", *words, "--quantized", "drop"]) == 2
    assert main(["convert", source, str(tmp_path / "c"), *words[1:], *said]) == 0
    capsys.readouterr()
    assert bridge.load(tmp_path / "c", None)["w"].shape == (16, 256)
    assert main(["diff", source, source, "--values"]) == 1
