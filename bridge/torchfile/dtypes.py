"""PyTorch's dtypes and storage types, and numpy's types for them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import ml_dtypes
import numpy as np

DTYPES: Mapping[str, np.dtype] = MappingProxyType({
    name: np.dtype(numpy)
    for name, numpy in {
        "bool": "?", "uint8": "u1", "int8": "i1", "int16": "<i2", "uint16": "<u2", "int32": "<i4", "uint32": "<u4",
        "int64": "<i8", "uint64": "<u8", "float16": "<f2", "float32": "<f4", "float64": "<f8",
        "complex64": "<c8", "complex128": "<c16", "bfloat16": ml_dtypes.bfloat16,
        "float8_e4m3fn": ml_dtypes.float8_e4m3fn, "float8_e4m3fnuz": ml_dtypes.float8_e4m3fnuz,
        "float8_e5m2": ml_dtypes.float8_e5m2, "float8_e5m2fnuz": ml_dtypes.float8_e5m2fnuz,
        "float8_e8m0fnu": ml_dtypes.float8_e8m0fnu,
    }.items()
})  # fmt: skip
"""`torch.NAME` to the type of its elements, little-endian."""

STORAGES: Mapping[str, str] = MappingProxyType({
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8",
    "ByteStorage": "uint8", "BoolStorage": "bool", "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128", "QInt8Storage": "qint8", "QInt32Storage": "qint32",
    "QUInt8Storage": "quint8", "QUInt4x2Storage": "quint4x2", "QUInt2x4Storage": "quint2x4",
})  # fmt: skip
"""`torch.NAME` to the dtype of its elements. `UntypedStorage` is not among them: it counts bytes."""

_QUANTISED = {"qint8": 1, "qint32": 4, "quint8": 1, "quint4x2": 1, "quint2x4": 1}

NUMPY_CODES: Mapping[str, np.dtype] = MappingProxyType({
    code: np.dtype("?" if code == "b1" else code)
    for code in ("b1", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "c8", "c16")
})  # fmt: skip
"""What a pickled numpy dtype is called to its type."""

ML_DTYPES: Mapping[str, np.dtype] = MappingProxyType({
    f"ml_dtypes.{dtype.name}": dtype for dtype in DTYPES.values() if dtype.kind == "V" or "float8" in dtype.name
})  # fmt: skip
"""The scalar types of ml_dtypes, which a pickled dtype names by their class."""


def itemsize(kind: str | None) -> int:
    """Bytes of one element of a storage of a dtype, or of an untyped one."""
    if kind is None:
        return 1
    return _QUANTISED[kind] if kind in _QUANTISED else DTYPES[kind].itemsize
