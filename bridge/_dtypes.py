"""The one table of dtypes: safetensors' names, numpy's types, bits an element."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import ml_dtypes
import numpy as np

from bridge._errors import CheckpointError
from bridge._text import quote


class DType:
    """A dtype that a safetensors file can hold.

    `name` is safetensors' own ("BF16"), `numpy` the type its elements have in memory, `bits` the extent of one element
    in the file. Below 8 bits a file packs elements while numpy keeps one to the byte.
    """

    __slots__ = ("bits", "name", "numpy")

    def __init__(self, name: str, numpy: np.dtype, bits: int) -> None:
        self.name, self.numpy, self.bits = name, numpy, bits

    @property
    def packed(self) -> bool:
        """Whether a file stores several elements in one byte."""
        return self.bits < 8


def _table(*rows: tuple[str, type[np.generic] | str, int]) -> Mapping[str, DType]:
    return MappingProxyType({name: DType(name, np.dtype(numpy), bits) for name, numpy, bits in rows})


# In the reference's order: rising alignment. Files are little-endian, whatever the machine.
DTYPES: Mapping[str, DType] = _table(
    ("BOOL", "?", 8),
    ("F4", ml_dtypes.float4_e2m1fn, 4),
    ("F6_E2M3", ml_dtypes.float6_e2m3fn, 6),
    ("F6_E3M2", ml_dtypes.float6_e3m2fn, 6),
    ("U8", "u1", 8),
    ("I8", "i1", 8),
    ("F8_E5M2", ml_dtypes.float8_e5m2, 8),
    ("F8_E4M3", ml_dtypes.float8_e4m3fn, 8),
    ("F8_E8M0", ml_dtypes.float8_e8m0fnu, 8),
    ("F8_E4M3FNUZ", ml_dtypes.float8_e4m3fnuz, 8),
    ("F8_E5M2FNUZ", ml_dtypes.float8_e5m2fnuz, 8),
    ("I16", "<i2", 16),
    ("U16", "<u2", 16),
    ("F16", "<f2", 16),
    ("BF16", ml_dtypes.bfloat16, 16),
    ("I32", "<i4", 32),
    ("U32", "<u4", 32),
    ("F32", "<f4", 32),
    ("C64", "<c8", 64),
    ("F64", "<f8", 64),
    ("I64", "<i8", 64),
    ("U64", "<u8", 64),
)

_OTHERS: Mapping[str, np.dtype] = {"complex128": np.dtype("<c16")}
"""What PyTorch saves and safetensors does not."""

_NAMES: Mapping[np.dtype, str] = {dtype.numpy: dtype.name for dtype in DTYPES.values()}


def dtype_label(dtype: np.dtype) -> str:
    """What a dtype is called where any may stand: safetensors' name, else numpy's: `"complex128"`, `"void"`."""
    return _NAMES.get(dtype) or dtype.name


def labelled(label: str) -> np.dtype:
    """The dtype that `dtype_label` calls so. KeyError for others."""
    return DTYPES[label].numpy if label in DTYPES else _OTHERS[label]


def dtype_name(dtype: np.dtype) -> str:
    """What safetensors calls a numpy dtype: `"BF16"` for ml_dtypes' bfloat16.

    `CheckpointError` for a dtype that the format has no name for.
    """
    name = _NAMES.get(dtype)
    if name is None:
        known = ", ".join(str(d.numpy) for d in DTYPES.values())
        raise CheckpointError(
            f"dtype {quote(str(dtype))}", f"has no name in safetensors, which knows {known}", "Cast it to one of these"
        )
    return name
