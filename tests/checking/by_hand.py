"""A recording of one linear layer, written without PyTorch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from bridge.checking.matching import checksum


def record_linear(weight: np.ndarray, bias: np.ndarray, path: str | Path) -> None:
    """What `record` writes of an `nn.Linear` that is called with five rows."""
    x = np.random.default_rng(0).normal(size=(5, weight.shape[1])).astype("f4")
    tensors = {"t0": x, "t1": x @ weight.T + bias}
    params = {
        name: {"dtype": "float32", "shape": list(value.shape), "storage": n, "offset": 0, "crc": checksum(value), "rows": {}}
        for n, (name, value) in enumerate({"weight": weight, "bias": bias}.items())
    }  # fmt: skip
    taken: dict[str, Any] = {"dict": {"args": {"tuple": [{"tensor": 0}]}, "kwargs": {"dict": {}}}}
    content = {
        "version": 1,
        "torch": "2",
        "class": "Linear",
        "tensors": [
            {"shape": list(value.shape), "dtype": "float32", "whole": True, "file": name}
            for name, value in tensors.items()
        ],
        "modules": {
            "": {"class": "Linear", "kind": "Linear", "attrs": {}, "aliases": [], "training": False}
            | {"params": {name: name for name in params}}
        },
        "calls": [{"module": "", "start": 0, "end": 1, "in": taken, "out": {"tensor": 1}}],
        "ops": [],
        "params": params,
        "skipped": [],
    }
    save_file(tensors, path, {"format": "bridge-recording", "recording": json.dumps(content)})
