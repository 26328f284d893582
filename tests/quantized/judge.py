"""Between numpy, which holds what is stored, and the libraries that judge."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np

from tests.quantized.plain import BF16
from tests.quantized.stored import assert_same, found_in, read

_TORCH_NAMES = {np.dtype(BF16): "bfloat16", np.dtype(ml_dtypes.float8_e4m3fn): "float8_e4m3fn"}


def to_torch(array: np.ndarray) -> Any:
    import torch

    name = _TORCH_NAMES.get(array.dtype)
    if name is None:
        return torch.from_numpy(array.copy())
    return torch.from_numpy(array.view(f"u{array.dtype.itemsize}").copy()).view(getattr(torch, name))


def to_numpy(tensor: Any) -> np.ndarray:
    import torch

    tensor = tensor.detach().contiguous()
    for dtype, name in _TORCH_NAMES.items():
        if tensor.dtype == getattr(torch, name):
            return tensor.view(getattr(torch, f"uint{8 * dtype.itemsize}")).numpy().view(dtype)
    return tensor.numpy()


def agree(tensors: Mapping[str, np.ndarray], config: Any, expected: np.ndarray, key: str = "m.weight") -> None:
    """In the dtype of the judge's answer, and in float32 if that holds no more."""
    tensor = found_in(tensors, config).tensors[key]
    assert_same(read(tensor, tensors, expected.dtype), expected)
