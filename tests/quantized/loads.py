"""Quantised checkpoints in folders, and what is expected of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors.numpy

CASES = Path(__file__).parent / "cases"
NAMES = sorted(path.name for path in CASES.iterdir())
BF16 = np.dtype(ml_dtypes.bfloat16)
FP8 = {"quant_method": "fp8", "weight_block_size": [128, 128]}
INT4 = {
    "quant_method": "compressed-tensors",
    "format": "pack-quantized",
    "config_groups": {"g": {"targets": ["Linear"], "weights": {"num_bits": 4, "group_size": 128}}},
}
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False, "sym": False}


def expected(case: str) -> dict[str, dict[str, Any]]:
    """Of each quantised weight its shape, and the hashes of its values."""
    return json.loads((CASES / case / "expected.json").read_text())


def digest(array: Any) -> str:
    return hashlib.sha256(np.asarray(array).tobytes()).hexdigest()


def folder(path: Path, tensors: Mapping[str, np.ndarray], said: Mapping[str, Any] | None, **config: Any) -> Path:
    """A checkpoint of one file, and its config."""
    path.mkdir(parents=True, exist_ok=True)
    safetensors.numpy.save_file(dict(tensors), path / "model.safetensors", {"format": "pt"})
    if said is not None:
        config["quantization_config"] = dict(said)
    if config:
        (path / "config.json").write_text(json.dumps(config))
    return path


def fp8(rng: np.random.Generator, rows: int, columns: int, name: str) -> dict[str, np.ndarray]:
    """Blocks of 128 x 128; every code but NaN."""
    codes = rng.integers(0, 254, (rows, columns), np.uint8)
    codes[codes == 0x7F] = 0x3F
    scales = rng.uniform(0.01, 0.1, (-(-rows // 128), -(-columns // 128))).astype(np.float32)
    return {f"{name}.weight": codes.view(ml_dtypes.float8_e4m3fn), f"{name}.weight_scale_inv": scales}


def int4(rng: np.random.Generator, rows: int, columns: int, name: str) -> dict[str, np.ndarray]:
    """Groups of 128, as compressed-tensors packs them."""
    return {
        f"{name}.weight_packed": rng.integers(-(2**31), 2**31, (rows, columns // 8), np.int32),
        f"{name}.weight_scale": rng.uniform(0.01, 0.1, (rows, columns // 128)).astype(BF16),
        f"{name}.weight_shape": np.array([rows, columns], np.int64),
    }


def gptq(rng: np.random.Generator, rows: int, columns: int, name: str) -> dict[str, np.ndarray]:
    """Groups of 128 of the columns."""
    return {
        f"{name}.qweight": rng.integers(-(2**31), 2**31, (columns // 8, rows), np.int32),
        f"{name}.qzeros": rng.integers(-(2**31), 2**31, (columns // 128, rows // 8), np.int32),
        f"{name}.scales": rng.uniform(0.01, 0.1, (columns // 128, rows)).astype(np.float16),
    }


KINDS = {"fp8": (fp8, FP8), "int4": (int4, INT4), "gptq": (gptq, GPTQ)}


def layers(path: Path, kind: str, count: int = 3, rows: int = 256, columns: int = 384) -> Path:
    """Layers `h.0.up.weight` …, each with a plain bias."""
    rng = np.random.default_rng(7)
    make, said = KINDS[kind]
    tensors: dict[str, np.ndarray] = {}
    for n in range(count):
        tensors |= make(rng, rows, columns, f"h.{n}.up")
        tensors[f"h.{n}.up.bias"] = rng.standard_normal(rows, np.float32).astype(BF16)
    return folder(path, tensors, said, torch_dtype="bfloat16")
