"""Byte-exact safetensors files for tests, the reference reader's verdict on them, and ours."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors

from bridge._dtypes import dtype_name
from bridge.format.header import Header, read_header
from bridge.source import LocalFile


def craft(header: str | bytes | Mapping[str, Any], data: bytes = b"") -> bytes:
    """A file's bytes: 8 bytes of length, the header as it is given (a mapping as compact JSON), the data."""
    if isinstance(header, Mapping):
        header = json.dumps(header, separators=(",", ":"))
    raw = header.encode("utf-8", "surrogatepass") if isinstance(header, str) else header
    return struct.pack("<Q", len(raw)) + raw + data


def entry(dtype: str, shape: list[int], start: int, stop: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


def checkpoint(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> bytes:
    """A file that holds `tensors`, in their order; for dtypes that numpy itself has, as little-endian."""
    names = {"f4": "F32", "f8": "F64", "f2": "F16", "i8": "I64", "i4": "I32", "i1": "I8", "u1": "U8", "b1": "BOOL"}
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    data = b""
    for key, array in tensors.items():
        header[key] = entry(names[array.dtype.str[1:]], list(array.shape), len(data), len(data) + array.nbytes)
        data += array.tobytes()
    return craft(header, data)


def ours(path: Path) -> Header:
    source = LocalFile(path, path.name)
    try:
        return read_header(source)
    finally:
        source.close()


def reference(path: Path) -> tuple[dict[str, str], dict[str, tuple[str, tuple[int, ...], bytes]]] | None:
    """What the reference reader sees: metadata, and key to (dtype, shape, bytes). None if it refuses the file."""
    try:
        with safetensors.safe_open(path, "np") as f:
            metadata = f.metadata()
    except safetensors.SafetensorError:
        return None
    tensors = safetensors.deserialize(path.read_bytes())
    return metadata or {}, {key: (t["dtype"], tuple(t["shape"]), bytes(t["data"])) for key, t in tensors}


def seen(path: Path, header: Header) -> tuple[dict[str, str], dict[str, tuple[str, tuple[int, ...], bytes]]]:
    """What we see, in the reference's terms."""
    raw = path.read_bytes()
    return header.metadata, {
        key: (dtype_name(spec.dtype), spec.shape, raw[spec.offset : spec.offset + spec.nbytes])
        for key, spec in header.tensors.items()
    }
