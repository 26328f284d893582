"""Quantised checkpoints through the public functions: by the keys that are meant, bit for bit what the reference says."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import fsspec
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

import bridge
from tests.place.test_sharding import run
from tests.quantized.loads import BF16, CASES, FP8, KINDS, NAMES, digest, expected, folder, fp8, layers
from tests.stream.views import counted, same

STACK = ["h.{l}.up.weight [o i] -> up [l i o]", "h.{l}.up.bias -> bias"]


@pytest.mark.parametrize("dtype", [np.dtype("f4"), BF16])
@pytest.mark.parametrize("case", NAMES)
def test_values(case: str, dtype: np.dtype):
    found = bridge.load(CASES / case, None, dtype=dtype)
    for key, said in expected(case).items():
        assert list(found[key].shape) == said["shape"]
        assert digest(found[key]) == said[dtype.name], key
    assert not any("scale" in key or "zero" in key or "absmax" in key for key in found)


@pytest.mark.parametrize("case", NAMES)
def test_quantized_of_a_checkpoint(case: str):
    with bridge.open(CASES / case) as ckpt:
        assert set(ckpt.quantized) == set(expected(case))
        for key, said in expected(case).items():
            tensor = ckpt.quantized[key]
            assert list(tensor.shape) == said["shape"]
            assert set(tensor.parts) <= set(ckpt)
            assert digest(tensor.read("float32")) == said["float32"]
            assert digest(tensor.read(BF16)) == said["bfloat16"]
            assert tensor.read().dtype == tensor.dtype
        with safetensors.safe_open(CASES / case / "model.safetensors", "np") as file:
            assert set(ckpt) == set(file.keys())
        assert {key: spec.dtype for key, spec in ckpt.specs.items()} == {key: ckpt[key].dtype for key in ckpt}


@pytest.mark.parametrize("case", NAMES)
def test_stacked_and_as_a_list(case: str):
    """One array for each projection, transposed; judged by the values of each weight alone."""
    family = re.compile(r"(.*layers\.)(\d+)(\..*)")
    found = {match[3]: match[1] for key in expected(case) if (match := family.fullmatch(key))}
    rules = [f"{head}{{l}}{tail} [... a b] -> {tail[1:]} [l ... b a]" for tail, head in found.items()]
    made = bridge.load(CASES / case, None, rules, dtype=jnp.float32, allow_unexpected=["**"])
    as_list = bridge.load(CASES / case, None, dtype=jnp.float32)
    for tail, head in found.items():
        parts = [np.asarray(as_list[f"{head}{n}{tail}"]) for n in range(2)]
        assert [digest(part) for part in parts] == [expected(case)[f"{head}{n}{tail}"]["float32"] for n in range(2)]
        assert np.asarray(made[tail[1:]]).tobytes() == np.stack([part.swapaxes(-1, -2) for part in parts]).tobytes()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("kind", KINDS)
def test_each_leaf_in_its_own_dtype_rounded_once(kind: str, dtype: str, tmp_path: Path):
    """The logical dtype is bfloat16: a float32 leaf is not rounded to it on its way."""
    source = layers(tmp_path / "q", kind)
    like = {"up": jax.ShapeDtypeStruct((3, 384, 256), dtype), "bias": jax.ShapeDtypeStruct((3, 256), "bfloat16")}
    made = bridge.load(source, like, STACK)
    with bridge.open(source) as ckpt:
        assert ckpt.quantized["h.0.up.weight"].dtype == BF16
        for n in range(3):
            wide = ckpt.quantized[f"h.{n}.up.weight"].read(np.float32)
            assert np.array_equal(np.asarray(made["up"][n]).T, wide.astype(dtype))
    scaled = bridge.load(source, like, [f"{STACK[0]} ; scale=3", STACK[1]])
    with np.errstate(over="ignore"):
        assert np.array_equal(np.asarray(scaled["up"][0]).T, (ckpt_values(source) * np.float32(3)).astype(dtype))


def ckpt_values(source: Path, key: str = "h.0.up.weight") -> np.ndarray:
    with bridge.open(source) as ckpt:
        return ckpt.quantized[key].read(np.float32)


@pytest.mark.parametrize("kind", ["fp8", "int4"])
def test_only_the_bytes_behind_some_rows_are_read(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = layers(tmp_path / "q", kind, 1, 1024, 1024)
    rules = ["h.0.up.weight [a[:128] b] -> w [a b]", "h.0.up.weight [a[128:] b] -> _", "h.0.up.bias -> _"]
    with bridge.open(source) as ckpt:
        whole = ckpt_values(source)
        ckpt.quantized.table()  # what decides about the plan is read before
        with counted(monkeypatch) as lengths:
            plan = bridge.plan(ckpt, None, rules)
            made = bridge.load(ckpt, None, plan, dtype=jnp.float32)
        needed = sum(ckpt.specs[key].nbytes for key in ckpt.quantized["h.0.up.weight"].parts) // 8
    assert np.asarray(made["w"]).tobytes() == whole[:128].tobytes()
    assert sum(lengths) == plan.nbytes <= 1.05 * needed


def test_on_eight_devices(tmp_path: Path):
    env = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    run([sys.executable, "-W", "error", "-m", "tests.quantized.on_devices", str(tmp_path)], env)


def test_peak_is_predicted(tmp_path: Path):
    run([sys.executable, "-W", "error", "-m", "tests.quantized.peaks", str(tmp_path)], dict(os.environ))


@pytest.mark.parametrize("case", NAMES)
def test_keep(case: str):
    """Stored keys, dtypes and bits."""
    stored = safetensors.numpy.load_file(CASES / case / "model.safetensors") if case in PLAIN_TO_NUMPY else None
    for options in ({"quantized": "keep"}, {"dtype": "checkpoint"}, {"quantized": {"as": "keep"}}):
        plan = bridge.plan(CASES / case, None, **options)
        assert plan.ok
        assert not plan.lossy
        assert not plan.quantized
        found = bridge.load(CASES / case, None, plan)
        same(found, bridge.load(CASES / case, None, **options))
        with bridge.open(CASES / case) as ckpt:
            narrowed = {key: ckpt[key] for key in ckpt if ckpt.specs[key].dtype != np.int64}
            same({key: found[key] for key in narrowed}, narrowed)
        if stored is not None:
            same({key: found[key] for key in stored}, stored)


PLAIN_TO_NUMPY = ("gptq-v1-4bit-g128-sym", "awq-gemm-g32")  # numpy alone has all their dtypes


def test_codes_are_kept_with_their_scales(tmp_path: Path):
    source = layers(tmp_path / "q", "fp8", 2)
    codes = jax.ShapeDtypeStruct((2, 256, 384), "float8_e4m3fn")
    like = {"weight": codes, "bias": jax.ShapeDtypeStruct((2, 256), "bfloat16")}
    bias = "h.{l}.up.bias -> bias"
    for template, rules in (
        (None, ["**.weight_scale_inv -> _", "** -> **"]),
        (like, ["h.{l}.up.{weight|bias} -> {weight|bias}"]),
    ):
        plan = bridge.plan(source, template, rules, quantized="keep", allow_unexpected=["**"])
        assert not plan.ok
        assert "its codes mean nothing without 'h.0.up.weight_scale_inv'" in str(plan)
        again = bridge.plan(source, template, plan, quantized="keep")
        assert str(again).count("without 'h.0.up.weight_scale_inv'") == 1
    assert bridge.plan(source, {"bias": like["bias"]}, [bias], quantized="keep", allow_unexpected=["**"]).ok


def test_a_leaf_of_codes_takes_no_values(tmp_path: Path):
    source = layers(tmp_path / "q", "fp8", 2)
    like = {"weight": jax.ShapeDtypeStruct((2, 256, 384), "float8_e4m3fn")}
    plan = bridge.plan(source, like, ["h.{l}.up.weight -> weight", "h.{l}.up.bias -> _"])
    assert "bfloat16 is not cast to float8_e4m3fn, whose codes mean nothing without scales" in str(plan)
    assert "keep what is stored with quantized='keep'" in str(plan)


def test_what_the_plan_says():
    plan = bridge.plan(CASES / "fp8-block-llama-f32", None, dtype=jnp.float32)
    key = "model.layers.{0..1}.mlp.up_proj.weight"
    assert f"{key} fp8[194, 136] in blocks of 128 x 128 " in str(plan)
    assert f"-> {key} float32[194, 136]\n" in str(plan)
    with bridge.open(CASES / "fp8-block-llama-f32") as ckpt:
        assert plan.nbytes == sum(spec.nbytes for spec in ckpt.specs.values())
        assert {lossy.key for lossy in plan.lossy} == set(ckpt.quantized)
    assert {lossy.reason for lossy in plan.lossy} == {
        "fp8 in blocks of 128 x 128: saved as bfloat16, so quantization_config has to leave config.json"
    }
    again = bridge.Plan.from_json(plan.to_json())
    assert again == plan
    assert str(again) == str(plan)
    assert again.lossy == plan.lossy
    same(
        bridge.load(CASES / "fp8-block-llama-f32", None, again), bridge.load(CASES / "fp8-block-llama-f32", None, plan)
    )


def test_a_skipped_module_with_quantised_keys_is_a_warning(tmp_path: Path):
    tensors = fp8(np.random.default_rng(0), 130, 140, "lm_head")
    source = folder(tmp_path / "q", tensors, {**FP8, "modules_to_not_convert": ["lm_head"]})
    plan = bridge.plan(source, None)
    assert plan.ok
    (warning,) = plan.warnings
    assert "'lm_head'" in warning
    assert f"  warning: {warning}" in str(plan).splitlines()


def test_a_rule_that_names_a_part_makes_its_module_raw(tmp_path: Path):
    source = layers(tmp_path / "q", "fp8", 2)
    rules = ["h.0.up.weight -> codes", "h.0.up.weight_scale_inv -> scales", "** -> **"]
    made = bridge.load(source, None, rules)
    with bridge.open(source) as ckpt:
        assert np.asarray(made["codes"]).tobytes() == ckpt["h.0.up.weight"].tobytes()
        assert np.asarray(made["scales"]).tobytes() == ckpt["h.0.up.weight_scale_inv"].tobytes()
        assert np.asarray(made["h.1.up.weight"]).tobytes() == ckpt.quantized["h.1.up.weight"].read().tobytes()
    assert "h.1.up.weight_scale_inv" not in made
    raw = bridge.plan(source, None, ["h.{l}.up.{weight_scale_inv|weight} -> {weight_scale_inv|weight}.{l}", "** -> **"])
    assert not raw.quantized


def test_wildcards_match_no_part(tmp_path: Path):
    source = layers(tmp_path / "q", "int4", 2)
    plan = bridge.plan(source, None, ["**.weight_scale -> _", "**.weight_* -> _", "** -> **"])
    assert plan.ok
    assert not plan.dropped
    assert set(plan.specs) == {f"h.{n}.up.{name}" for n in range(2) for name in ("weight", "bias")}


def test_a_mapping_says_what_a_missing_config_does_not(tmp_path: Path):
    case = "awq-gemm-g32"
    shutil.copy(CASES / case / "model.safetensors", tmp_path / "model.safetensors")
    with pytest.raises(bridge.CheckpointError, match=r"quantized=\{'quant_method': '"):
        bridge.plan(tmp_path, None)
    said = {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm"}
    found = bridge.load(tmp_path / "model.safetensors", None, quantized=said, dtype=jnp.float32)
    assert {key: digest(found[key]) for key in expected(case)} == {k: e["float32"] for k, e in expected(case).items()}
    plan = bridge.plan(tmp_path, None, quantized=said, dtype=jnp.float32)
    same(bridge.load(tmp_path, None, bridge.Plan.from_json(plan.to_json())), found)
    assert "model.layers.0.mlp.up_proj.qweight" in bridge.load(tmp_path, None, quantized=said | {"as": "keep"})


@pytest.mark.parametrize("case", ["bnb-nf4", "mxfp4-gpt-oss", "fp8-block-llama-f32", "ct-fp8-tensor"])
def test_what_keys_alone_tell(case: str, tmp_path: Path):
    shutil.copy(CASES / case / "model.safetensors", tmp_path / "model.safetensors")
    found = bridge.load(tmp_path, None, dtype=jnp.float32)
    assert {key: digest(found[key]) for key in expected(case)} == {k: e["float32"] for k, e in expected(case).items()}


@pytest.mark.parametrize("wanted", ["drop", 3, {"as": "codes"}, {"quant_method": object()}])
def test_what_quantized_may_not_be(wanted: Any):
    with pytest.raises(bridge.PlanError, match="quantized"):
        bridge.plan(CASES / "bnb-nf4", None, quantized=wanted)


@pytest.mark.parametrize("dtype", ["u1", "i1", "i4", "u4", "f4"])
def test_plain_models_with_such_keys_are_untouched(dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """No config is looked for where nothing could be quantised, and none of these is a part of anything."""
    names = ["m.scale", "m.scales", "m.biases", "m.g_idx", "m.bias", "n.weight", "ids"]
    tensors = {name: np.arange(6, dtype=dtype).reshape(2, 3) for name in names}
    source = folder(tmp_path / "plain", tensors, None)
    same(bridge.load(source, None), tensors)
    with bridge.open(source) as ckpt:
        assert not ckpt.quantized
        if dtype == "f4":
            monkeypatch.setattr(ckpt, "beside", None)
            assert bridge.plan(ckpt, None).ok


def test_over_a_network_few_requests_come_before_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`weight_shape` of every module is read, neighbours together, and config.json once."""
    source = layers(tmp_path / "q", "int4", 40, 128, 256)
    fs = fsspec.filesystem("memory")
    for path in source.iterdir():
        fs.pipe_file(f"/quantised/{path.name}", path.read_bytes())
    asked: list[str] = []
    cat = type(fs).cat_file

    def counting(self: Any, path: str, *args: Any, **kwargs: Any) -> bytes:
        asked.append(path)
        return cat(self, path, *args, **kwargs)

    monkeypatch.setattr(type(fs), "cat_file", counting)
    with bridge.open("memory://quantised") as ckpt:
        opened = len(asked)
        plan = bridge.plan(ckpt, None, STACK)
        assert len(plan.quantized) == 40
        assert sum(path.endswith("config.json") for path in asked[opened:]) == 1
        assert len(asked) - opened <= 5
        same(bridge.load(ckpt, None, plan), bridge.load(source, None, STACK))
    fs.rm("/quantised", recursive=True)


def test_on_the_hub(hub: Any, tmp_path: Path):
    """config.json comes through the Hub's cache, by its name; a plan fetches no weights."""
    case = "fp8-block-llama-f32"
    hub.add("org/name", {path.name: path.read_bytes() for path in (CASES / case).iterdir()})
    plan = bridge.plan("org/name", None)
    assert plan.quantized.keys() == expected(case).keys()
    found = bridge.load("org/name", None, plan, dtype=jnp.float32)
    assert {key: digest(found[key]) for key in expected(case)} == {k: e["float32"] for k, e in expected(case).items()}
