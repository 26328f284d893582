"""Arrays by number: the keys of a checkpoint, or the leaves of a model, as columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias, overload, runtime_checkable

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

Shape = tuple[int, ...]
Numbers: TypeAlias = "npt.NDArray[np.intp]"
_FLAT = 1 << 62  # rows that one number can tell apart


class ArraySpec(Protocol):
    """Whatever has a dtype and a shape: a `Spec`, a `TensorSpec`, a `Form`."""

    @property
    def dtype(self) -> np.dtype:
        """A numpy dtype."""
        ...

    @property
    def shape(self) -> Shape:
        """A tuple of ints."""
        ...

    @property
    def nbytes(self) -> int:
        """How many bytes it takes where it is stored."""
        ...


@runtime_checkable
class Columnar(Protocol):
    """Specs by name that hold them as columns already."""

    def columns(self) -> tuple[Sequence[str], Numbers, Sequence[ArraySpec]]:
        """The names, of each the number of its spec, and the specs, which many arrays share."""
        ...


class ArrayTable:
    """All arrays of one side: array `n` is `names[n]`, with the dtype, the shape and the bytes of `specs[kinds[n]]`."""

    __slots__ = ("_numbers", "kinds", "names", "specs")

    def __init__(self, names: Sequence[str], kinds: Numbers, specs: Sequence[ArraySpec]) -> None:
        self.names, self.kinds, self.specs = names, kinds, specs
        self._numbers: dict[str, int] | None = None

    @property
    def numbers(self) -> dict[str, int]:
        """The number of each name."""
        if self._numbers is None:
            self._numbers = dict(zip(self.names, range(len(self.names)), strict=True))
        return self._numbers

    @classmethod
    def of(cls, specs: Mapping[str, ArraySpec]) -> ArrayTable:
        """The arrays of a mapping, in its order."""
        if isinstance(specs, Columnar):
            return cls(*specs.columns())
        known: dict[tuple[np.dtype, Shape, int], int] = {}
        first: list[ArraySpec] = []
        kinds: list[int] = []
        before, kind = None, 0
        for spec in specs.values():
            if spec is not before:  # many arrays in a row share one
                kind = known.setdefault((spec.dtype, spec.shape, spec.nbytes), len(first))
                if kind == len(first):
                    first.append(spec)
            kinds.append(kind)
            before = spec
        return cls(list(specs), np.array(kinds, np.intp), first)

    def __len__(self) -> int:
        return len(self.names)

    def is_like(self, other: ArrayTable) -> bool:
        """Whether both have the same names, each with the same dtype and shape, and number them alike."""
        if len(self.specs) != len(other.specs) or not np.array_equal(self.kinds, other.kinds):
            return False
        pairs = zip(self.specs, other.specs, strict=True)
        return all(a.dtype == b.dtype and a.shape == b.shape for a, b in pairs) and self.names == other.names

    def spec(self, number: int) -> ArraySpec:
        """Dtype and shape of one array."""
        return self.specs[int(self.kinds[number])]


class Arrays(Sequence[str]):
    """Some arrays of a table, in an order of their own, of which one may stand several times; a sequence of names."""

    __slots__ = ("numbers", "table")

    def __init__(self, table: ArrayTable, numbers: Numbers) -> None:
        self.table = table
        self.numbers = numbers

    @classmethod
    def joined(cls, parts: Sequence[Arrays]) -> Arrays:
        """Arrays of one table, one part after the other."""
        if len(parts) == 1:
            return parts[0]
        return cls(parts[0].table, np.concatenate([part.numbers for part in parts]))

    def at(self, rows: Sequence[int] | Numbers) -> Arrays:
        """Those in some rows."""
        return Arrays(self.table, self.numbers[np.asarray(rows, np.intp)])

    def spec(self, row: int) -> ArraySpec:
        """Dtype and shape of the array in one row."""
        return self.table.spec(int(self.numbers[row]))

    def kinds(self) -> list[tuple[ArraySpec, int]]:
        """The specs that these arrays have, each with the first row that has it."""
        kinds = self.table.kinds[self.numbers]
        if len(kinds) == 1 or (kinds == kinds[0]).all():
            return [(self.spec(0), 0)]
        found, first = np.unique(kinds, return_index=True)
        pairs: list[tuple[int, int]] = sorted(zip(first.tolist(), found.tolist(), strict=True))
        return [(self.table.specs[kind], row) for row, kind in pairs]

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Arrays: ...
    def __getitem__(self, index: int | slice) -> str | Arrays:
        if isinstance(index, slice):
            return Arrays(self.table, self.numbers[index])
        return self.table.names[int(self.numbers[index])]

    def __iter__(self) -> Iterator[str]:
        return map(self.table.names.__getitem__, self.numbers.tolist())

    def __repr__(self) -> str:
        return f"Arrays({list(self)!r})"


def groups(column: Numbers) -> list[tuple[int, Numbers]]:
    """The values of a column, in the order in which they first stand there, each with the rows that have it."""
    if not len(column):
        return []
    if (column == column[0]).all():
        return [(int(column[0]), np.arange(len(column)))]
    order = np.argsort(column, kind="stable")
    heads = np.flatnonzero(np.diff(column[order], prepend=column[order[0]] - 1))
    found = [(int(column[rows[0]]), rows) for rows in np.split(order, heads[1:])]
    return sorted(found, key=lambda pair: pair[1][0])


def repeats(columns: Sequence[Numbers]) -> bool:
    """Whether some row of these columns stands twice."""
    count = len(columns[0]) if columns else 0
    if count < 2:
        return False
    flat, width = np.zeros(count, np.int64), 1
    for column in columns:
        low, high = int(column.min()), int(column.max())
        if low == high:
            continue
        width *= high - low + 1
        if width >= _FLAT:
            return len(np.unique(np.column_stack(columns), axis=0)) < count
        flat = flat * (high - low + 1) + (column - low)
    if width <= 16 * count:
        return bool((np.bincount(flat) > 1).any())
    flat = np.sort(flat)
    return bool((flat[1:] == flat[:-1]).any())
