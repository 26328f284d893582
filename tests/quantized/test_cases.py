"""Ten small checkpoints, as their own tools wrote them, and what the reference makes of each.

`expected.json` has for each logical key its shape and the SHA-256 of the reference's little-endian bytes, in float32
and in bfloat16.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors import deserialize

from bridge._dtypes import DTYPES
from tests.quantized.stored import found_in, read

CASES = Path(__file__).parent / "cases"
FORMATS = {
    "awq-gemm-g32": "awq int4 in groups of 32",
    "bnb-nf4": "nf4 in blocks of 64",
    "ct-fp8-tensor": "fp8 with one scale",
    "ct-nvfp4": "nvfp4 in groups of 16",
    "ct-w4a16-g32-f16": "int4 in groups of 32",
    "fp8-block-llama-f32": "fp8 in blocks of 128 x 128",
    "gptq-v1-4bit-g128-sym": "gptq int4 in groups of 128",
    "mlx-4bit-g64": "mlx int4 in groups of 64",
    "modelopt-fp8": "fp8 with one scale",
    "mxfp4-gpt-oss": "mxfp4 in groups of 32, transposed",
}


def opened(case: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    folder = CASES / case
    tensors = {
        key: np.frombuffer(bytes(entry["data"]), DTYPES[entry["dtype"]].numpy).reshape(entry["shape"])
        for key, entry in deserialize((folder / "model.safetensors").read_bytes())
    }
    said: dict[str, Any] = {"config": json.loads((folder / "config.json").read_text())}
    if (folder / "hf_quant_config.json").exists():
        said["modelopt"] = json.loads((folder / "hf_quant_config.json").read_text())
    return tensors, said


def test_all_are_here():
    assert {path.name for path in CASES.iterdir()} == set(FORMATS)


@pytest.mark.parametrize("case", FORMATS)
def test_values_are_the_references(case: str):
    tensors, said = opened(case)
    expected = json.loads((CASES / case / "expected.json").read_text())
    found = found_in(tensors, **said)
    assert set(found.tensors) == set(expected)
    assert not found.warnings
    for key, tensor in found.tensors.items():
        assert str(tensor.form) == FORMATS[case]
        assert list(tensor.form.shape) == expected[key]["shape"]
        for dtype in (np.float32, ml_dtypes.bfloat16):
            got = read(tensor, tensors, dtype)
            assert hashlib.sha256(got.tobytes()).hexdigest() == expected[key][np.dtype(dtype).name], (key, dtype)


@pytest.mark.parametrize("case", FORMATS)
def test_what_is_left_is_plain(case: str):
    tensors, said = opened(case)
    found = found_in(tensors, **said)
    left = {key: tensors[key].dtype for key in tensors if key not in found.consumed}
    assert left
    assert set(left.values()) <= {np.dtype(ml_dtypes.bfloat16), np.dtype(np.float16), np.dtype(np.float32)}
    assert not any("scale" in key or "zero" in key for key in left)
