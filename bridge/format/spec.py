"""`TensorSpec`: what a user sees of one tensor of a file. A load goes by columns and makes none."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """The dtype, the shape and the place of one stored tensor.

    - `dtype`: a numpy dtype; bfloat16, float8 and similar dtypes are those of ml_dtypes.
    - `shape`: a tuple of ints.
    - `nbytes`: the size of the tensor in the file, in bytes.
    - `file`: the name of its file, one of `Checkpoint.files`.
    - `offset`: the place of its first byte in this file, in bytes from the start of the file.

    ```python
    with bridge.open("model.safetensors") as ckpt:
        spec = ckpt.specs["weight"]
    assert (spec.dtype, spec.shape, spec.nbytes) == (np.float32, (2, 3), 24)
    ```
    """

    dtype: np.dtype
    shape: tuple[int, ...]
    nbytes: int
    file: str
    offset: int
