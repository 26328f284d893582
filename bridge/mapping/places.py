"""`Places`: many rows of whole numbers, one by one as tuples, or all at once as a matrix."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias, overload

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

Row = tuple[int, ...]
Matrix: TypeAlias = "npt.NDArray[np.int64]"


class Places(Sequence[Row]):
    """Rows of equal length. Made of tuples or of a matrix `(rows, columns)`; each becomes the other when asked for.

    A checkpoint may have 100,000 tensors: what is done for all of them at once asks for `matrix`.
    """

    __slots__ = ("_matrix", "_rows")

    def __init__(self, rows: Sequence[Row] | Matrix) -> None:
        self._matrix = rows if isinstance(rows, np.ndarray) else None
        self._rows = None if isinstance(rows, np.ndarray) else rows

    @classmethod
    def repeated(cls, row: Row, count: int) -> Places:
        """`count` times the same row."""
        matrix = np.empty((count, len(row)), np.int64)
        matrix[:] = row
        return cls(matrix)

    @classmethod
    def joined(cls, parts: Sequence[Places]) -> Places:
        """Rows of one length, one part after the other."""
        if len(parts) == 1:
            return parts[0]
        rows = [part._rows for part in parts]
        if None in rows:
            return cls(np.concatenate([part.matrix for part in parts]))
        return cls([row for part in rows for row in part or ()])

    @property
    def matrix(self) -> Matrix:
        """All rows, int64."""
        if self._matrix is None:
            rows = self._rows or ()
            self._matrix = np.array(rows, np.int64).reshape(len(rows), len(rows[0]) if rows else 0)
        return self._matrix

    @property
    def width(self) -> int:
        """How many columns there are; 0 without rows."""
        if self._rows is not None:
            return len(self._rows[0]) if self._rows else 0
        return self.matrix.shape[1]

    def columns(self, columns: Sequence[int]) -> Places:
        """Some columns of all rows."""
        if self._rows is None or len(self._rows) > 8:
            return Places(self.matrix[:, list(columns)])
        return Places([tuple([row[column] for column in columns]) for row in self._rows])

    def at(self, numbers: Sequence[int] | npt.NDArray[np.intp]) -> Places:
        """Some rows, by number."""
        if self._rows is not None and len(numbers) <= 8:
            return Places([self._rows[n] for n in numbers])
        return Places(self.matrix[np.asarray(numbers, np.intp)])

    def __len__(self) -> int:
        return len(self._rows) if self._rows is not None else len(self.matrix)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> Places: ...
    def __getitem__(self, index: int | slice) -> Row | Places:
        if isinstance(index, slice):
            return Places(self._rows[index] if self._rows is not None else self.matrix[index])
        return self._rows[index] if self._rows is not None else tuple(self.matrix[index].tolist())

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows) if self._rows is not None else map(tuple, self.matrix.tolist())

    def __repr__(self) -> str:
        return f"Places({list(self)!r})"
