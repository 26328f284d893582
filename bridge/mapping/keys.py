"""The keys of a checkpoint by number: what they are called, and which of them have the same dtype and shape."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias, overload, runtime_checkable

import numpy as np

from bridge.mapping.indexmap import Shape
from bridge.mapping.template import ArraySpec

if TYPE_CHECKING:
    import numpy.typing as npt

Numbers: TypeAlias = "npt.NDArray[np.intp]"


@runtime_checkable
class Columnar(Protocol):
    """Specs by key that hold them as columns already."""

    def columns(self) -> tuple[Sequence[str], Numbers, Sequence[ArraySpec]]:
        """The keys, of each the number of its spec, and the specs, which many keys share."""
        ...


class KeyTable:
    """All keys: key `n` is `names[n]`, and has the dtype, the shape and the bytes of `specs[kinds[n]]`."""

    __slots__ = ("kinds", "names", "specs")

    def __init__(self, names: Sequence[str], kinds: Numbers, specs: Sequence[ArraySpec]) -> None:
        self.names, self.kinds, self.specs = names, kinds, specs

    @classmethod
    def of(cls, specs: Mapping[str, ArraySpec]) -> KeyTable:
        """The keys of a mapping, in its order."""
        if isinstance(specs, Columnar):
            return cls(*specs.columns())
        known: dict[tuple[np.dtype, Shape, int], int] = {}
        first: list[ArraySpec] = []
        kinds = np.empty(len(specs), np.intp)
        for number, spec in enumerate(specs.values()):
            kind = known.setdefault((spec.dtype, spec.shape, spec.nbytes), len(first))
            if kind == len(first):
                first.append(spec)
            kinds[number] = kind
        return cls(list(specs), kinds, first)

    def __len__(self) -> int:
        return len(self.names)

    def is_like(self, other: KeyTable) -> bool:
        """Whether both have the same keys, each with the same dtype and shape, and number them alike."""
        if len(self.specs) != len(other.specs) or not np.array_equal(self.kinds, other.kinds):
            return False
        pairs = zip(self.specs, other.specs, strict=True)
        return all(a.dtype == b.dtype and a.shape == b.shape for a, b in pairs) and self.names == other.names

    def spec(self, number: int) -> ArraySpec:
        """Dtype and shape of one key."""
        return self.specs[int(self.kinds[number])]


class Keys(Sequence[str]):
    """Some keys of a table, in an order of their own."""

    __slots__ = ("numbers", "table")

    def __init__(self, table: KeyTable, numbers: Numbers) -> None:
        self.table = table
        self.numbers = numbers

    @classmethod
    def joined(cls, parts: Sequence[Keys]) -> Keys:
        """Keys of one table, one part after the other."""
        if len(parts) == 1:
            return parts[0]
        return cls(parts[0].table, np.concatenate([part.numbers for part in parts]))

    def at(self, places: Sequence[int] | Numbers) -> Keys:
        """Those at some places."""
        return Keys(self.table, self.numbers[np.asarray(places, np.intp)])

    def spec(self, place: int) -> ArraySpec:
        """Dtype and shape of the key at `place`."""
        return self.table.spec(int(self.numbers[place]))

    def shape(self, place: int) -> Shape:
        """The shape of the key at `place`."""
        return self.spec(place).shape

    def kinds(self) -> list[tuple[ArraySpec, int]]:
        """The specs that these keys have, each with the place of the first key that has it."""
        if len(self.numbers) == 1:
            return [(self.spec(0), 0)]
        kinds = self.table.kinds[self.numbers]
        if (kinds == kinds[0]).all():
            return [(self.spec(0), 0)]
        kinds, first = np.unique(kinds, return_index=True)
        pairs: list[tuple[int, int]] = list(zip(kinds.tolist(), first.tolist(), strict=True))
        return sorted([(self.table.specs[kind], place) for kind, place in pairs], key=_second)

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

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Keys: ...
    def __getitem__(self, index: int | slice) -> str | Keys:
        if isinstance(index, slice):
            return Keys(self.table, self.numbers[index])
        return self.table.names[int(self.numbers[index])]

    def __iter__(self) -> Iterator[str]:
        return map(self.table.names.__getitem__, self.numbers.tolist())

    def __repr__(self) -> str:
        return f"Keys({list(self)!r})"


def _second(pair: tuple[ArraySpec, int]) -> int:
    return pair[1]
