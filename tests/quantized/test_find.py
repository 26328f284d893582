"""Which keys are parts of quantised tensors, and which only look like it."""

from __future__ import annotations

import re
import time
import tracemalloc
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from bridge import CheckpointError
from bridge.quantized import find
from bridge.quantized.config import REFUSED
from bridge.quantized.formats import FORMATS
from tests.quantized.stored import Spec, found_in

E4M3, BF16, F32 = np.dtype(ml_dtypes.float8_e4m3fn), np.dtype(ml_dtypes.bfloat16), np.dtype(np.float32)
PLAIN: dict[str, np.ndarray] = {
    "norm.scale": np.ones(8, np.float32),
    "norm.scales": np.ones(8, np.float32),
    "layer.biases": np.ones(8, np.float32),
    "layer.weight": np.ones((8, 8), np.float32),
    "layer.scales": np.ones((8, 1), np.float32),
    "graph.g_idx": np.zeros(8, np.int32),
    "mask.weight": np.ones((4, 4), np.uint8),
    "table.weight": np.ones((4, 4), np.int8),
    "table.scale": np.ones(4, np.float32),
    "ids.weight": np.ones((4, 4), np.uint32),
    "ids.scales": np.ones((3, 2), np.float32),
    "attn.k_scale": np.ones((), np.float32),
    "x_blocks": np.ones((2, 3), np.uint8),
    "x_scales": np.ones(2, np.uint8),
    "cast.weight": np.ones((4, 4), ml_dtypes.float8_e4m3fn),
    "weight_format": np.ones((), np.uint8),
    "q.absmax": np.ones(3, np.float32),
    "q.input_scale": np.ones((), np.float32),
}
CONFIGS: dict[str, dict[str, Any]] = {
    "compressed-tensors": {"format": "pack-quantized", "config_groups": {}},
    "gptq": {"bits": 4},
    "awq": {"bits": 4, "version": "gemm"},
}


@pytest.mark.parametrize("config", [None, {}, {"torch_dtype": "bfloat16"}, {"quantization_config": {}}])
def test_a_plain_model_is_left_alone(config: Any):
    found = found_in(PLAIN, config)
    assert not found.tensors
    assert not found.consumed


def test_modules_that_a_quantised_model_left_plain():
    """Without their companions, or without codes, they are plain in a quantised checkpoint too."""
    plain = {key: array for key, array in PLAIN.items() if key.startswith(("norm", "mask", "table", "layer.weight"))}
    for method in FORMATS:
        if method in ("gptq", "awq", "mlx", "metal"):
            continue  # a `scales` of theirs says that something is missing
        found = found_in(plain, {"quantization_config": {"quant_method": method, **CONFIGS.get(method, {})}})
        assert not found.tensors, method


def fp8(base: str) -> dict[str, np.ndarray]:
    return {
        f"{base}.weight": np.ones((4, 4), ml_dtypes.float8_e4m3fn),
        f"{base}.weight_scale_inv": np.ones((1, 1), np.float32),
    }


@pytest.mark.parametrize("section", ["text_config", "llm_config"])
def test_the_config_of_a_part(section: str):
    inner = {"quantization_config": {"quant_method": "fp8"}, "dtype": "float16"}
    found = found_in(fp8("m"), {section: inner})
    assert found.tensors["m.weight"].form.dtype == np.float16


def test_the_dtype_that_is_meant():
    assert found_in(fp8("m")).tensors["m.weight"].form.dtype == BF16
    assert found_in(fp8("m"), {"torch_dtype": "float32"}).tensors["m.weight"].form.dtype == F32
    half = fp8("m") | {"m.weight_scale_inv": np.ones((1, 1), np.float16)}
    assert found_in(half).tensors["m.weight"].form.dtype == np.float16


def test_what_changes_no_weight_is_used_up():
    beside = {"m.input_scale": np.ones((), np.float32), "a.self_attn.k_scale": np.ones(1, np.float32)}
    beside |= {"a.k_proj.k_scale": np.ones((), np.float32), "a.v_proj.v_scale": np.ones((), np.float32)}
    found = found_in(fp8("m") | beside, {"quantization_config": {"quant_method": "fp8"}})
    assert found.tensors["m.weight"].beside == ("m.input_scale",)
    assert set(found.beside) == set(beside) - {"m.input_scale"}


SKIPS = {
    "modules_to_not_convert": ("fp8", ["a.*.q"], ["x.q"], ["proj"]),
    "ignore": ("compressed-tensors", ["re:a.*q"], ["a.b.q"], ["Linear"]),
    "exclude_modules": ("modelopt", ["*.q"], ["a.b.q"], ["q"]),
    "llm_int8_skip_modules": ("bitsandbytes", ["a.*"], ["b.q"], ["lm_head"]),
}


@pytest.mark.parametrize("field", SKIPS)
def test_quantised_keys_in_a_skipped_module_are_a_warning(field: str):
    method, regex, plain, other = SKIPS[field]
    tensors = {"a.b.q.weight": np.ones((4, 4), np.int8), "a.b.q.SCB": np.ones(4, np.float32)}
    if method != "bitsandbytes":
        tensors = {
            "a.b.q.weight": np.ones((4, 4), ml_dtypes.float8_e4m3fn),
            "a.b.q.weight_scale": np.ones((4, 1), np.float32),
        }
    if field == "modules_to_not_convert":
        regex, plain = ["a.*"], ["b.q"]
    for entries, warned in ((regex, True), (plain, True), (other, False), (["("], False)):
        found = found_in(tensors, {"quantization_config": {"quant_method": method, field: entries}})
        assert bool(found.warnings) == warned, entries
        assert list(found.tensors) == ["a.b.q.weight"]
        if warned:
            assert found.warnings == (
                f"{field} names 1 module with quantised keys, such as 'a.b.q': they are read as quantised",
            )


def test_a_regex_that_would_take_for_ever_is_not_tried():
    tensors = fp8(f"a.{'a' * 200}.b")
    found = found_in(tensors, {"quantization_config": {"quant_method": "fp8", "modules_to_not_convert": ["(a+)+$"]}})
    assert not found.warnings


def deepseek(layers: int = 61, experts: int = 256) -> tuple[list[str], list[int], list[Spec]]:
    """The keys of a DeepSeek-V3 in FP8: 45,000 weights, each with its scales."""
    forms: dict[Spec, int] = {}
    names: list[str] = []
    kinds: list[int] = []

    def add(name: str, out: int, inner: int, quantized: bool = True) -> None:
        names.append(f"{name}.weight")
        kinds.append(forms.setdefault(Spec(E4M3 if quantized else BF16, (out, inner)), len(forms)))
        if quantized:
            names.append(f"{name}.weight_scale_inv")
            kinds.append(forms.setdefault(Spec(F32, (-(-out // 128), -(-inner // 128))), len(forms)))

    for layer in range(layers):
        at = f"model.layers.{layer}"
        add(f"{at}.self_attn.q_a_proj", 1536, 7168)
        add(f"{at}.self_attn.q_b_proj", 24576, 1536)
        add(f"{at}.self_attn.kv_a_proj_with_mqa", 576, 7168)
        add(f"{at}.self_attn.kv_b_proj", 32768, 512)
        add(f"{at}.self_attn.o_proj", 7168, 16384)
        add(f"{at}.mlp.gate", 256, 7168, quantized=False)
        for expert in range(experts if layer >= 3 else 1):
            for name, out, inner in (("gate_proj", 2048, 7168), ("up_proj", 2048, 7168), ("down_proj", 7168, 2048)):
                add(f"{at}.mlp.experts.{expert}.{name}", out, inner)
    return names, kinds, list(forms)


def test_a_hundred_thousand_keys_take_well_under_a_second():
    names, kinds, forms = deepseek()
    assert len(names) > 89_000
    config = {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}
    start = time.process_time()
    found = find(names, np.array(kinds), forms, config)
    took = time.process_time() - start
    assert took < 3  # 0.2 s on a quiet core; this catches a search that is quadratic
    assert len(found.tensors) == 61 * 5 + 3 * (58 * 256 + 3)
    assert len({id(tensor.form) for tensor in found.tensors.values()}) == 7
    assert found.tensors["model.layers.0.self_attn.kv_a_proj_with_mqa.weight"].form.how == "in blocks of 128 x 128"


def test_a_hundred_thousand_keys_take_little_memory():
    names, kinds, forms = deepseek(layers=10)
    config = {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}
    tracemalloc.start()
    found = find(names, np.array(kinds), forms, config)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held / len(found.tensors) < 500


@pytest.mark.parametrize("method", REFUSED)
def test_what_is_not_read_is_refused_by_name(method: str):
    with pytest.raises(CheckpointError, match=re.escape(f"{REFUSED[method]} is not read. Take the stored tensors")):
        found_in({}, {"quantization_config": {"quant_method": method}})


def test_a_stored_weight_beside_its_own_parts_is_refused():
    tensors = {"m.weight_packed": np.ones((4, 4), np.uint8), "m.weight_scale": np.ones((4, 1), np.uint8)}
    tensors |= {"m.weight": np.ones((4, 8), np.float32)}
    with pytest.raises(CheckpointError, match=r"'m\.weight' is stored, and so are quantised parts of it"):
        found_in(
            tensors, {"quantization_config": {"quant_method": "compressed-tensors", "format": "mxfp4-pack-quantized"}}
        )
