"""DeepSeek-V3's structure in small: dense layers, then layers of experts, FP8 in blocks beside plain tensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

import bridge
from bridge.source.box import box_of, reads
from tests.quantized.loads import BF16, FP8, folder

LAYERS, DENSE, EXPERTS, HIDDEN = 5, 2, 3, 256
ATTENTION = {"q_a_proj": (128, 256), "q_b_proj": (192, 128), "kv_a_proj_with_mqa": (72, 256)}
ATTENTION |= {"kv_b_proj": (256, 64), "o_proj": (256, 640)}
NORMS = {"input_layernorm": 256, "post_attention_layernorm": 256, "self_attn.q_a_layernorm": 128}
NORMS |= {"self_attn.kv_a_layernorm": 64}
RULES = [
    "model.embed_tokens.weight -> embed",
    "model.norm.weight -> norm",
    "lm_head.weight -> head",
    f"model.layers.{{l[:{DENSE}]}}.** -> dense.**",
    f"model.layers.{{l[{DENSE}:]}}.mlp.experts.{{e}}.** -> moe.mlp.experts.**",
    f"model.layers.{{l[{DENSE}:]}}.** -> moe.**",
]


def mlp(at: str, inner: int) -> dict[str, tuple[int, int]]:
    return {f"{at}.gate_proj": (inner, HIDDEN), f"{at}.up_proj": (inner, HIDDEN), f"{at}.down_proj": (HIDDEN, inner)}


def layer(number: int) -> tuple[dict[str, tuple[int, int]], dict[str, tuple[int, ...]]]:
    """The quantised weights of a layer, and the plain tensors."""
    at = f"model.layers.{number}"
    codes = {f"{at}.self_attn.{name}": shape for name, shape in ATTENTION.items()}
    plain: dict[str, tuple[int, ...]] = {f"{at}.{name}.weight": (size,) for name, size in NORMS.items()}
    if number < DENSE:
        return codes | mlp(f"{at}.mlp", 384), plain
    for expert in range(EXPERTS):
        codes |= mlp(f"{at}.mlp.experts.{expert}", 128)
    plain |= {f"{at}.mlp.gate.weight": (EXPERTS, HIDDEN), f"{at}.mlp.gate.e_score_correction_bias": (EXPERTS,)}
    return codes | mlp(f"{at}.mlp.shared_experts", 128), plain


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    tensors: dict[str, Any] = {name: rng.standard_normal((99, HIDDEN), np.float32).astype(BF16) for name in ("e", "h")}
    tensors = {"model.embed_tokens.weight": tensors["e"], "lm_head.weight": tensors["h"]}
    tensors["model.norm.weight"] = rng.standard_normal(HIDDEN, np.float32).astype(BF16)
    for number in range(LAYERS):
        codes, plain = layer(number)
        for name, shape in codes.items():
            bits = rng.integers(0, 120, shape, np.uint8)
            tensors[f"{name}.weight"] = bits.view(ml_dtypes.float8_e4m3fn)
            grid = tuple(-(-n // 128) for n in shape)
            tensors[f"{name}.weight_scale_inv"] = rng.uniform(0.01, 0.1, grid).astype(np.float32)
        for name, shape in plain.items():
            dtype = np.dtype("f4") if "bias" in name else BF16
            tensors[name] = rng.standard_normal(shape, np.float32).astype(dtype)
    path, names, index = tmp_path_factory.mktemp("deepseek"), list(tensors), dict[str, str]()
    for number, part in enumerate((names[::2], names[1::2]), 1):  # codes here, scales there
        file = f"model-{number:05}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, path / file)
        index |= dict.fromkeys(part, file)
    (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    (path / "config.json").write_text(json.dumps({"torch_dtype": "bfloat16", "quantization_config": FP8}))
    return path


def test_every_weight_has_its_place(source: Path):
    plan = bridge.plan(source, None, RULES)
    assert plan.ok
    assert len(plan.leaves) == 3 + (9 + 3) + (9 + 3 + 3 + 2)
    assert plan.leaves["moe.mlp.experts.up_proj.weight"].shape == (LAYERS - DENSE, EXPERTS, 128, HIDDEN)
    assert plan.leaves["moe.mlp.gate.e_score_correction_bias"].dtype == np.float32
    assert {spec.dtype for name, spec in plan.leaves.items() if "bias" not in name} == {BF16}


def test_codes_and_scales_as_they_are_stored(source: Path):
    """Each weight of FP8 has a leaf of scales beside its own."""
    plan = bridge.plan(source, None, RULES, quantized="keep")
    assert plan.ok
    assert len(plan.leaves) == 51


@pytest.mark.parametrize("quantized", ["dequantize", "keep"])
def test_each_byte_is_read_once(source: Path, quantized: str):
    plan = bridge.plan(source, None, RULES, quantized=quantized)
    with bridge.open(source) as ckpt:
        assert plan.nbytes == sum(spec.nbytes for spec in ckpt.specs.values())


def test_what_is_loaded(source: Path):
    loaded = bridge.load(source, None, RULES)
    with bridge.open(source) as ckpt:
        for at, key in {
            (2, 1): "model.layers.4.mlp.experts.1.down_proj.weight",
            (0, 2): "model.layers.2.mlp.experts.2.down_proj.weight",
        }.items():
            codes, scales = ckpt[key].astype(np.float32), ckpt[f"{key}_scale_inv"]
            expected = (codes * np.repeat(np.repeat(scales, 128, 0), 128, 1)).astype(BF16)
            assert np.asarray(loaded["moe.mlp.experts.down_proj.weight"][at]).tobytes() == expected.tobytes()


def test_rows_too_wide_for_a_whole_block_are_read_once(tmp_path: Path):
    """128 rows of 16,384 codes are more than is read at a time: they are cut between rows, not between columns."""
    codes = np.zeros((256, 16384), np.uint8).view(ml_dtypes.float8_e4m3fn)
    tensors = {"w.weight": codes, "w.weight_scale_inv": np.ones((2, 128), np.float32)}
    with bridge.open(folder(tmp_path, tensors, FP8)) as ckpt:
        plan = bridge.plan(ckpt, None)
        table = ckpt.quantized.table()
        tensor = table.part(table.numbers["w.weight"])
        boxes = list(reads(tensor, (range(256), range(16384))))
        assert {len(box[1]) for box in boxes} == {16384}
        assert max(box_of(tensor, box).read_nbytes for box in boxes) <= 2 << 20
    assert codes.nbytes < plan.nbytes <= 1.001 * codes.nbytes
