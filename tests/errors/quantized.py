"""Quantised checkpoints that are not read, or that contradict themselves."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import bridge
import bridge.models
import bridge.quantized
from tests.errors.situations import situation
from tests.quantized.stored import found_in, read
from tests.save.files import write

E4M3, BF16, U8, I8, I32, U32, F16, F32 = ml_dtypes.float8_e4m3fn, ml_dtypes.bfloat16, "u1", "i1", "i4", "u4", "f2", "f4"
Made = Mapping[str, np.ndarray]


def zeros(**shapes: tuple[Any, tuple[int, ...]]) -> Made:
    """Stored tensors of a module `m`; `__` in a name is a dot."""
    return {f"m.{name.replace('__', '.')}": np.zeros(shape, dtype) for name, (dtype, shape) in shapes.items()}


def _found(tensors: Made, said: Mapping[str, Any] | None) -> Callable[[pytest.MonkeyPatch], Any]:
    def provoke(patch: pytest.MonkeyPatch) -> None:
        found = found_in(tensors, {} if said is None else {"quantization_config": said})
        for tensor in found.tensors.values():
            read(tensor, tensors)

    return provoke


def compressed(**fields: Any) -> dict[str, Any]:
    weights = fields.pop("weights", {"num_bits": 4, "group_size": 32})
    group = {"targets": fields.pop("targets", ["Linear"]), "weights": weights}
    return {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {"g": group}, **fields}


def state(**fields: Any) -> Made:
    said = {"quant_type": "nf4", "blocksize": 64, "shape": [8, 64], **fields}
    raw = np.frombuffer(json.dumps(said).encode(), np.uint8)
    codes = zeros(weight=(U8, (256, 1)), weight__absmax=(F32, (8,)), weight__quant_map=(F32, (16,)))
    return {**codes, "m.weight.quant_state.bitsandbytes__nf4": raw}


FP8 = {"quant_method": "fp8", "weight_block_size": [128, 128]}
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False, "sym": True}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm"}
MLX = {"bits": 4, "group_size": 64, "quant_method": "mlx"}
BNB = {"quant_method": "bitsandbytes"}
GROUPED = zeros(weight_packed=(I32, (8, 8)), weight_scale=(BF16, (8, 2)))
CHANNEL = {"num_bits": 4, "strategy": "channel"}
QWEIGHT = zeros(qweight=(I32, (8, 32)), scales=(F16, (2, 32)), qzeros=(I32, (2, 4)))
AWEIGHT = zeros(qweight=(I32, (64, 4)), scales=(F16, (2, 32)), qzeros=(I32, (2, 4)))
WORDS = zeros(weight=(U32, (8, 8)), scales=(BF16, (8, 1)), biases=(BF16, (8, 1)))
SHAPED = zeros(weight_packed=(I32, (8, 8)), weight_scale=(BF16, (8, 1)))

for name, (tensors, said) in {
    # what is not read
    "a format that is not read": ({}, {"quant_method": "hqq"}),
    "a format that nobody knows": ({}, {"quant_method": "mystery"}),
    "no name of a format": ({}, {"quant_method": 4}),
    "auto-round in another packing": ({}, {"quant_method": "auto-round", "packing_format": "auto_round:exllama"}),
    "GPTQ for another kernel": ({}, {**GPTQ, "checkpoint_format": "marlin"}),
    "GPTQ in Marlin's layout": ({}, {**GPTQ, "is_marlin_format": True}),
    "AWQ for another kernel": ({}, {**AWQ, "version": "gemv"}),
    "2 of 4 weights": ({}, compressed(format="marlin-24")),
    "sparse weights": ({}, compressed(sparsity_config={"format": "sparse-24-bitmask"})),
    "rotated weights": ({}, compressed(transform_config={"config_groups": {"u": {}}})),
    "a regex that may take for ever": ({}, compressed(targets=["re:(a+)+$"])),
    # incomplete
    "codes without scales": (zeros(weight=(E4M3, (4, 4))), FP8),
    "scales without codes": (zeros(weight_scale_inv=(F32, (4, 4))), FP8),
    "a weight beside its parts": ({**GROUPED, **zeros(weight=(F32, (8, 64)))}, compressed()),
    # fp8
    "scales that fit no block": (zeros(weight=(E4M3, (256, 256)), weight_scale_inv=(F32, (3, 2))), FP8),
    "scales of blocks that nobody says": (
        zeros(weight=(E4M3, (576, 8)), weight_scale_inv=(F32, (7, 1))),
        {"quant_method": "fp8"},
    ),
    "scales in whole numbers": (zeros(weight=(E4M3, (4, 4)), weight_scale_inv=(I32, (1, 1))), FP8),
    "a block that is none": (
        zeros(weight=(E4M3, (4, 4)), weight_scale_inv=(F32, (1, 1))),
        {**FP8, "weight_block_size": "128"},
    ),
    # compressed-tensors
    "packed, and no config": (GROUPED, None),
    "packed in bits that nobody says": (GROUPED, compressed(weights={})),
    "packed in one bit": (GROUPED, compressed(weights={"num_bits": 1})),
    "a number that is none": (GROUPED, compressed(weights={"num_bits": "4"})),
    "packed in other bits": (GROUPED, compressed(weights={"num_bits": 8, "group_size": 32})),
    "packed either way": (
        zeros(weight_packed=(I32, (8, 1)), weight_scale=(BF16, (8, 1))),
        compressed(weights={"num_bits": 3, "group_size": 8}),
    ),
    "another weight_shape": ({**SHAPED, "m.weight_shape": np.array([7, 64])}, compressed(weights=CHANNEL)),
    "a weight_g_idx beyond its groups": ({**GROUPED, "m.weight_g_idx": np.full(64, 2, np.int32)}, compressed()),
    # GPTQ and AWQ
    "GPTQ, and no config": (QWEIGHT, None),
    "AWQ, and no config": (AWEIGHT, None),
    "qweight of odd shapes, and no config": (
        zeros(qweight=(I32, (8, 32)), scales=(F16, (32,)), qzeros=(I32, (2, 4))),
        None,
    ),
    "GPTQ in five bits": (QWEIGHT, {**GPTQ, "bits": 5}),
    "zero points that are not all the same": (QWEIGHT, GPTQ),
    "a g_idx that does not count up": (
        {**QWEIGHT, "m.g_idx": np.arange(64, dtype=np.int32) // 32, "n.g_idx": np.zeros(64, np.int32)}
        | {key.replace("m.", "n."): array for key, array in QWEIGHT.items()},
        {**GPTQ, "sym": False},
    ),
    "a g_idx beyond its groups": (
        {**QWEIGHT, "m.g_idx": np.full(64, 2, np.int32)},
        {**GPTQ, "sym": False, "desc_act": True},
    ),
    "AWQ in eight bits": (AWEIGHT, {**AWQ, "bits": 8}),
    # bitsandbytes
    "a state that is no JSON": ({**state(), "m.weight.quant_state.bitsandbytes__nf4": np.zeros(9, np.uint8)}, BNB),
    "a state without a shape": (state(shape=[]), BNB),
    "a state without a blocksize": (state(blocksize=0), BNB),
    "a state of another type": (state(quant_type="nf5"), BNB),
    "a state without an offset": ({**state(), "m.weight.absmax": np.zeros(8, np.uint8)}, BNB),
    # MLX
    "MLX, and no config": (WORDS, None),
    "MLX in seven bits": (WORDS, {**MLX, "bits": 7}),
    "MLX in another mode": (WORDS, {**MLX, "mode": "mxfp2"}),
}.items():
    situation(f"quantised: {name}")(_found(tensors, said))


def _folder(tensors: Made, config: Any) -> Path:
    """A checkpoint in the empty folder that the situation runs in."""
    path = Path("q")
    path.mkdir()
    write(path / "model.safetensors", tensors)
    (path / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    return path


def said(**fields: Any) -> dict[str, Any]:
    return {"quantization_config": fields}


SHARED = zeros(weight_packed=(I32, (8, 8)), weight_scale=(BF16, (8, 1)), weight_shape=("i8", (2,)))


@situation("quantised checkpoint: a format that is not read")
def _(patch: pytest.MonkeyPatch) -> None:
    bridge.plan(_folder(WORDS, said(quant_method="hqq")), None)


@situation("quantised checkpoint: a config that is no JSON", until="is not JSON:")
def _(patch: pytest.MonkeyPatch) -> None:
    bridge.plan(_folder(WORDS, "{"), None)


@situation("quantised checkpoint: a config that is no object")
def _(patch: pytest.MonkeyPatch) -> None:
    bridge.plan(_folder(WORDS, [1]), None)


@situation("quantised checkpoint: values that contradict the config, loaded")
def _(patch: pytest.MonkeyPatch) -> None:
    bridge.load(_folder(QWEIGHT, {"quantization_config": GPTQ}), None)


@situation("quantised checkpoint: values that contradict the config, read")
def _(patch: pytest.MonkeyPatch) -> None:
    with bridge.open(_folder(QWEIGHT, {"quantization_config": GPTQ})) as ckpt:
        ckpt.quantized["m.weight"].read()


@situation("quantised checkpoint: a small part that is not small")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("bridge.source.small._LIMIT", 8)
    bridge.plan(_folder(SHARED, {"quantization_config": compressed(weights=CHANNEL)}), None)


@situation("quantised checkpoint: a file that changed before its small parts were read")
def _(patch: pytest.MonkeyPatch) -> None:
    path = _folder(SHARED, {"quantization_config": compressed(weights=CHANNEL)})
    with bridge.open(path) as ckpt:
        (path / "model.safetensors").write_bytes(b"")
        bridge.plan(ckpt, None)


@situation("quantised checkpoint: quantized that says nothing")
def _(patch: pytest.MonkeyPatch) -> None:
    bridge.plan(_folder(WORDS, {}), None, quantized="drop")


@situation("quantised checkpoint: quantized that no config could say", until="Object of type")
def _(patch: pytest.MonkeyPatch) -> None:
    bridge.plan(_folder(WORDS, {}), None, quantized={"quant_method": "gptq", "bits": {4}})


@situation("quantised checkpoint: codes on the device that are none")
def _(patch: pytest.MonkeyPatch) -> None:
    bridge.quantized.dequantize(jnp.zeros((2, 2)), jnp.ones((1, 1)))


@situation("quantised checkpoint: a model of two dtypes")
def _(patch: pytest.MonkeyPatch) -> None:
    other = {key.replace("m.", "n."): array.astype(F16) if "scale" in key else array for key, array in GROUPED.items()}
    fields = {"model_type": "llama", "vocab_size": 31, "hidden_size": 24, "num_hidden_layers": 1}
    fields |= {"num_attention_heads": 3, "num_key_value_heads": 3, "intermediate_size": 40}
    config = {**fields, "max_position_embeddings": 20, "quantization_config": compressed()}
    bridge.models.from_pretrained(_folder({**GROUPED, **other}, config))
