"""`TensorSpec`: what a user sees of one tensor of a file. A load goes by columns and makes none."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """dtype, shape and place of one tensor.

    - `dtype`: a numpy dtype; bf16, fp8 and the like are ml_dtypes' types.
    - `shape`: a tuple of ints.
    - `nbytes`: what the tensor takes in the file.
    - `file`: the name of its file, one of `Checkpoint.files`.
    - `offset`: where its first byte lies in that file, in bytes from the file's start.

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
