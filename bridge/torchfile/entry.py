"""What a file's tensors are to whoever reads them: places, not values."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Entry(NamedTuple):
    """A tensor as a view of its storage.

    Element `(i, j, …)` is element `start + i·strides[0] + j·strides[1] + …` of the storage.

    - `file`: the name of its file, as it was given to `read_torch_file`.
    - `storage`: what the file calls the storage. Tensors with the same one are tied, or share bytes.
    - `offset`, `nbytes`: where the storage lies, in bytes from the file's start.
    - `dtype`: numpy's or ml_dtypes', little-endian.
    - `start`: the first element, counted in elements of `dtype`.
    - `shape`, `strides`: tuples of ints; strides are in elements, none is negative, 0 where an axis is expanded.
    - `swapped`: whether the storage is big-endian.
    """

    file: str
    storage: str
    offset: int
    nbytes: int
    dtype: np.dtype
    start: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    swapped: bool


class Inline(NamedTuple):
    """A small numpy array whose data lies in the pickle itself; `values` may be big-endian and in Fortran's order."""

    values: np.ndarray


class Refused(NamedTuple):
    """A tensor that cannot be read, and what a `CheckpointError` says to whoever asks for it."""

    subject: str
    problem: str
    advice: str


class RootTensors(NamedTuple):
    """The tensors of one root.

    - `root`: its path, dots between the keys; empty for the whole file.
    - `entries`: name to where the tensor is.
    - `refused`: name to why a tensor cannot be read; an error only if it is used.
    - `skipped`: name to what lies there that is no tensor, such as "a number".
    """

    root: str
    entries: dict[str, Entry | Inline]
    refused: dict[str, Refused]
    skipped: dict[str, str]
