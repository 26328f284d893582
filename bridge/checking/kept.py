"""`Kept`: what a recording has of one tensor; and the trees of tensors that modules take and give."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from bridge.mapping.arrays import Numbers, Shape


def order(count: int, most: int) -> list[int]:
    """Which of `count` numbers a recording keeps: the first, the last, then as their bits read backwards."""
    found = list(dict.fromkeys((0, count - 1))) if count else []
    bits = max(count - 1, 0).bit_length()
    for n in range(1, 1 << bits):
        if len(found) >= most:
            break
        number = int(f"{n:0{bits}b}"[::-1], 2)
        if number < count and number not in (0, count - 1):
            found.append(number)
    return found[:most]


class Kept:
    """Rows and columns of a tensor of `shape`, or all of it where `whole`; `values` are None where nothing was kept.

    A row is one place of all axes but the last; they are numbered in C's order. Two of one `number` are one tensor, of
    which one has more than the other.
    """

    def __init__(
        self, shape: Shape, dtype: np.dtype, values: np.ndarray | None, *, whole: bool, number: int = -1
    ) -> None:
        self.shape, self.dtype, self.values, self.whole, self.number = shape, dtype, values, whole, number

    def __repr__(self) -> str:
        return f"<Kept {self.dtype}{list(self.shape)}{'' if self.whole else f' in {len(self.rows)} rows'}>"

    @property
    def width(self) -> int:
        """How many columns the tensor has."""
        return self.shape[-1] if self.shape else 1

    @property
    def height(self) -> int:
        """How many rows the tensor has."""
        return prod(self.shape[:-1])

    @cached_property
    def rows(self) -> Numbers:
        """The numbers of the rows that are kept."""
        if self.whole or self.values is None:
            return np.arange(self.height if self.values is not None else 0)
        return np.array(order(self.height, len(self.values)), np.intp)

    @cached_property
    def columns(self) -> Numbers:
        """The numbers of the columns that are kept."""
        if self.whole or self.values is None:
            return np.arange(self.width if self.values is not None else 0)
        count = self.values.shape[1]
        return np.arange(count) if count == self.width else np.array(order(self.width, count), np.intp)

    @cached_property
    def matrix(self) -> np.ndarray:
        """What is kept, of shape `(rows, columns)`."""
        if self.values is None:
            return np.zeros((0, 0), self.dtype)
        return self.values.reshape(len(self.rows), len(self.columns))

    @property
    def complete(self) -> np.ndarray | None:
        """All values, in the tensor's shape; None where some are not kept. Few rows are all rows."""
        if self.values is None or (len(self.rows), len(self.columns)) != (self.height, self.width):
            return None
        return self.at(np.arange(self.height)).reshape(self.shape)

    def take(self, array: np.ndarray) -> np.ndarray:
        """The same elements of another array of the tensor's shape, of shape `(rows, columns)`."""
        return np.asarray(array).reshape(self.height, self.width)[np.ix_(self.rows, self.columns)]

    def at(self, rows: Numbers) -> np.ndarray:
        """Some of the rows that are kept, by their numbers in the tensor."""
        places = {row: place for place, row in enumerate(self.rows.tolist())}
        return self.matrix[[places[row] for row in rows.tolist()]]


class Other:
    """A value of the run that is no tensor and no plain value: the name of its class."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __repr__(self) -> str:
        return f"<{self.kind}>"


def tensors(tree: Any) -> Iterator[Kept]:
    """The tensors of a tree, in its order."""
    if isinstance(tree, Kept):
        yield tree
    elif isinstance(tree, tuple):
        for child in tree:
            yield from tensors(child)
    elif isinstance(tree, dict):
        for child in tree.values():
            yield from tensors(child)


def common_rows(one: Kept, other: Kept) -> Numbers:
    """The rows that are kept of both: those of one place, where both have as many."""
    if one.height != other.height:
        return np.arange(0)
    return np.intersect1d(one.rows, other.rows)
