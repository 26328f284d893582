"""All tensors of one header as columns, and a mapping that makes a `TensorSpec` when asked."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, Mapping, Sequence, ValuesView
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from bridge._dtypes import DTYPES
from bridge.format.collector import collector_off
from bridge.format.spec import TensorSpec

_MAX_COUNT = 2**64 - 1  # the reference counts in 64 bits


def element_count(shape: Sequence[int]) -> int:
    """How many elements a shape has; OverflowError where 64 bits do not hold it, or the product on the way to it."""
    count = 1
    for extent in shape:
        count *= extent
        if count > _MAX_COUNT:
            raise OverflowError(f"a tensor of shape {tuple(shape)} has too many elements to count")
    return count


class Form(NamedTuple):
    """What many tensors of a file have in common."""

    dtype: str
    shape: tuple[int, ...]
    nbytes: int


@dataclass(frozen=True, slots=True)
class Columns:
    """A checked header. Row `r` is tensor `keys[r]`; `starts` are int64, in bytes from the start of the data."""

    metadata: dict[str, str]
    keys: Sequence[str]
    forms: Sequence[Form]
    starts: np.ndarray


class Table(Mapping[str, TensorSpec]):
    """key to `TensorSpec`. A header of 100,000 tensors opens without making one."""

    def __init__(self, columns: Columns, *, file: str, data_start: int) -> None:
        self._columns = columns
        self._file = file
        self._data_start = data_start

    def __getitem__(self, key: str) -> TensorSpec:
        return self._specs[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns.keys)

    def __len__(self) -> int:
        return len(self._columns.keys)

    def items(self) -> ItemsView[str, TensorSpec]:
        """All at once: one by one they would take twice the time."""
        return self._specs.items()

    def values(self) -> ValuesView[TensorSpec]:
        """All at once, as `items`."""
        return self._specs.values()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._specs!r})"

    @cached_property
    def _specs(self) -> dict[str, TensorSpec]:
        c, file = self._columns, self._file
        numpy = {name: dtype.numpy for name, dtype in DTYPES.items()}
        offsets = (c.starts + self._data_start).tolist()
        with collector_off(len(offsets) > 1000):
            return {
                key: TensorSpec(numpy[dtype], shape, nbytes, file, offset)
                for key, (dtype, shape, nbytes), offset in zip(c.keys, c.forms, offsets, strict=True)
            }
