"""Keys by shape: what the rooms that send keys to leaves ask of them beside their numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bridge.mapping.arrays import Arrays, ArrayTable, Numbers
from bridge.mapping.indexmap import Shape

KeyTable = ArrayTable


class Keys(Arrays):
    """Some keys of a table, in an order of their own."""

    __slots__ = ()

    def at(self, rows: Sequence[int] | Numbers) -> Keys:
        """Those in some rows."""
        return Keys(self.table, self.numbers[np.asarray(rows, np.intp)])

    def shape(self, place: int) -> Shape:
        """The shape of the key at `place`."""
        return self.spec(place).shape

    def shapes(self) -> dict[Shape, int]:
        """The shapes that these keys have, each with the place of the first key that has it."""
        found: dict[Shape, int] = {}
        for spec, place in self.kinds():
            found.setdefault(spec.shape, place)
        return found

    def by_shape(self) -> dict[Shape, Numbers]:
        """The places of the keys of each shape."""
        kinds = self.kinds()
        if len({spec.shape for spec, _ in kinds}) == 1:
            return {kinds[0][0].shape: np.arange(len(self))}
        found: dict[Shape, list[int]] = {}
        for place in range(len(self)):
            found.setdefault(self.shape(place), []).append(place)
        return {shape: np.array(places, np.intp) for shape, places in found.items()}
