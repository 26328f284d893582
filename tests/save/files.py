"""Checkpoints as the reference reader sees them, bit for bit, and small ones to save."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import ml_dtypes
import numpy as np
import safetensors

from bridge._dtypes import DTYPES, dtype_name

INDEX = "model.safetensors.index.json"


class Bits(NamedTuple):
    """A tensor as it lies in a file."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


def bits(array: Any) -> Bits:
    """What a file holds for `array`."""
    array = np.asarray(array)
    return Bits(dtype_name(array.dtype), array.shape, array.tobytes())


def read(path: Path) -> dict[str, Bits]:
    """A file as the safetensors library reads it, or all files that the index of a folder names."""
    if path.is_dir() and (path / INDEX).exists():
        weight_map = json.loads((path / INDEX).read_text())["weight_map"]
        files = {name: read(path / name) for name in set(weight_map.values())}
        return {key: files[name][key] for key, name in weight_map.items()}
    file = path / "model.safetensors" if path.is_dir() else path
    found = safetensors.deserialize(file.read_bytes())
    return {key: Bits(t["dtype"], tuple(t["shape"]), bytes(t["data"])) for key, t in found}


def metadata(path: Path) -> dict[str, str] | None:
    with safetensors.safe_open(path, "np") as file:
        return file.metadata()


def write(path: Path, tensors: Mapping[str, np.ndarray], meta: Mapping[str, str] | None = None) -> Path:
    """A file of `tensors`, of any dtype whose values fill their bytes, in their order."""
    header: dict[str, Any] = {} if meta is None else {"__metadata__": dict(meta)}
    data = b""
    for key, array in tensors.items():
        stop = len(data) + array.nbytes
        header[key] = {"dtype": dtype_name(array.dtype), "shape": list(array.shape), "data_offsets": [len(data), stop]}
        data += array.tobytes()
    raw = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + data)
    return path


def random(shape: tuple[int, ...], dtype: str = "F32", seed: int = 0) -> np.ndarray:
    """Random bits of a dtype: NaNs with payloads, infinities and subnormals among them."""
    kind = DTYPES[dtype].numpy
    count = int(np.prod(shape, dtype=int))
    raw = np.random.default_rng([seed, *shape]).integers(
        0, 2 if dtype == "BOOL" else 256, count * kind.itemsize, np.uint8
    )
    return raw.view(kind).reshape(shape)


def finite(shape: tuple[int, ...], dtype: Any = np.float32, seed: int = 0) -> np.ndarray:
    """Random numbers of an ordinary size."""
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def struct(shape: tuple[int, ...], dtype: Any = np.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


BF16 = ml_dtypes.bfloat16
