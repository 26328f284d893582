"""Scales of blocks: where they lie, and how a chunk of values is multiplied by them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from bridge.quantized.view import Array, Box, Shape, covering


@dataclass(frozen=True, slots=True)
class Grid:
    """One stored value for each block of a tensor.

    - `block`: a block's extent along each axis of the tensor; the last block of an axis may be cut short.
    - `axes`: for each stored axis, which axis of the tensor it runs along; -1 for one of one element.
    """

    block: Shape
    axes: tuple[int, ...]

    def box(self, box: Box) -> Box:
        """The stored box behind a box of the tensor."""
        return tuple(range(1) if axis < 0 else covering(box[axis], self.block[axis]) for axis in self.axes)

    def matrix(self, stored: Array) -> Array:
        """A stored box as `(rows, columns)` of the grid; all axes before have one element."""
        rank = len(self.block)
        extents = [1] * rank
        for axis, extent in zip(self.axes, stored.shape, strict=True):
            if axis >= 0:
                extents[axis] = extent
        return stored.reshape(extents[-2], extents[-1])

    @classmethod
    def fit(cls, shape: Shape, stored: Shape, block: Shape = ()) -> Grid | None:
        """The grid that values of shape `stored` make over a tensor of `shape`; `None` where they fit no block.

        **Arguments:**

        - `shape`: of the tensor, two axes or more.
        - `stored`: of the scales.
        - `block`: what the config says about the last two axes; it holds for an axis where it fits.
        """
        axes = _axes(shape, stored)
        if axes is None:
            return None
        blocks = list(shape)
        given: Shape = (0,) * (len(shape) - len(block)) + block if len(block) <= len(shape) else ()
        for axis, extent in zip(axes, stored, strict=True):
            if axis < 0:
                continue
            length, wanted = shape[axis], given[axis] if given else 0
            if wanted > 0 and -(-length // wanted) == extent:
                blocks[axis] = wanted
            elif extent > 0 and length % extent == 0:
                blocks[axis] = length // extent
            else:
                return None
        return cls(tuple(max(block, 1) for block in blocks), axes)


def _axes(shape: Shape, stored: Shape) -> tuple[int, ...] | None:
    """Which axis of `shape` each stored axis runs along."""
    if len(stored) == len(shape):
        return tuple(range(len(shape)))
    if all(extent == 1 for extent in stored):
        return (-1,) * len(stored)
    if len(stored) == 1:  # one for each row, or for each matrix of a stack
        return (0,) if stored[0] == shape[0] else None
    if len(stored) < len(shape):
        return tuple(range(len(stored))) if stored == shape[: len(stored)] else None
    # Unit axes between the others, as a reduction that keeps its axes leaves them.
    long = [axis for axis, extent in enumerate(stored) if extent != 1]
    places = iter(range(len(shape)))
    if len(stored) == 2 * len(shape) and all(extent == 1 for extent in stored[1::2]):
        return tuple(axis // 2 if axis % 2 == 0 else -1 for axis in range(len(stored)))
    if len(long) == len(shape):
        return tuple(next(places) if axis in long else -1 for axis in range(len(stored)))
    return None


_WIDE = 64  # blocks of so many columns are worth a call of an inner loop each


def spread(matrix: Array, box: Box, block: Shape, operate: Any, values: Array) -> None:
    """`operate(values, scales, out=values)`, each block with its own scale.

    **Arguments:**

    - `matrix`: shape `(rows, columns)` of the grid, those behind `box`.
    - `box`: rows and columns of the tensor (axes before them are ignored).
    - `block`: extents of a block along rows and columns, last.
    - `operate`: `np.multiply`, `np.subtract`, `np.add`.
    - `values`: shape `(rows, columns)`; any strides.
    """
    (rows, columns), (height, width) = box[-2:], block[-2:]
    for number, band in enumerate(_bands(rows, height)):
        factors, part = matrix[number : number + 1] if height > 1 else matrix, values[band]
        if matrix.shape[1] == 1:
            operate(part, factors, out=part)
        elif width >= _WIDE or (height == 1 and width > 1):
            # One scale after the other. A row of them, repeated, is no faster, and where it lies in memory can make it
            # seven times as slow.
            for inner, outer in _pieces(columns, width):
                groups = part[:, inner].reshape(len(part), outer.stop - outer.start, -1)  # splits an axis: no copy
                operate(groups, factors[:, outer, None], out=groups)
        else:
            skipped = columns.start % width
            operate(part, np.repeat(factors, width, axis=1)[:, skipped : skipped + len(columns)], out=part)


def _bands(rows: range, height: int) -> Iterator[slice]:
    """The rows that share a row of the grid; all of them where each has its own."""
    if height == 1:
        yield slice(0, len(rows))
        return
    for block in covering(rows, height):
        yield slice(max(block * height - rows.start, 0), min((block + 1) * height - rows.start, len(rows)))


def _pieces(columns: range, width: int) -> Iterator[tuple[slice, slice]]:
    """The first block if it is cut, the whole ones, the last if it is cut: columns, and blocks."""
    first, last = columns.start // width, columns.stop // width
    at, stop = columns.start, columns.stop
    if at % width or last == first:
        end = min((first + 1) * width, stop)
        yield slice(0, end - columns.start), slice(0, 1)
        at, first_whole = end, first + 1
    else:
        first_whole = first
    if last > first_whole:
        yield slice(at - columns.start, last * width - columns.start), slice(first_whole - first, last - first)
        at = last * width
    if at < stop:
        yield slice(at - columns.start, stop - columns.start), slice(last - first, last - first + 1)
