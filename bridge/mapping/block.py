"""`Block`: many tensors that go to many leaves by one index map, or by one for each term of a sum."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

from bridge.mapping.arrays import Arrays, Numbers
from bridge.mapping.indexmap import IndexMap

if TYPE_CHECKING:
    import numpy.typing as npt

Matrix: TypeAlias = "npt.NDArray[np.int64]"


class Term(NamedTuple):
    """The key of each row of a block. Row `i` of `starts`, of shape `(rows, axes of the tensor)`, is where the map
    starts in the tensor of `keys[i]`.
    """

    index_map: IndexMap
    keys: Arrays
    starts: Matrix

    def at(self, rows: Numbers) -> Term:
        """Some rows."""
        return Term(self.index_map, self.keys.at(rows), self.starts[rows])


@dataclass(slots=True)
class Block:
    """Rows of tensors and the places of leaves that they fill.

    Row `i` fills the box of `leaves[i]` that starts at `starts[i]` (`starts` has shape `(rows, axes of the leaf)`) with
    `sum(terms[...].keys[i]) * scale + add`. All rows have one map for each term, so their tensors have one shape and
    their leaves have one shape; dtypes may differ from row to row. All terms cover the same boxes. A leaf may stand in
    many rows (a stack of layers), and many leaves in one block (a list of layers).
    """

    leaves: Arrays
    terms: tuple[Term, ...]
    starts: Matrix
    scale: float | int = 1
    add: float | int = 0
    tie: bool = False
    copy: bool = False

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def changes_values(self) -> bool:
        """Whether values change, so that the bits of the leaf are not those of the tensors."""
        return len(self.terms) > 1 or self.scale != 1 or self.add != 0

    @property
    def needs_whole(self) -> bool:
        """Whether leaves are made whole: a sum whose terms run in different orders has no common parts."""
        return any(term.index_map.atoms != self.terms[0].index_map.atoms for term in self.terms[1:])

    def at(self, rows: Numbers) -> Block:
        """Some rows."""
        terms = tuple([term.at(rows) for term in self.terms])
        return replace(self, leaves=self.leaves.at(rows), terms=terms, starts=self.starts[rows])

    def maps(self, row: int) -> Iterator[tuple[str, IndexMap]]:
        """The keys of one row, each with the map that applies to it there."""
        leaf_start = tuple(self.starts[row].tolist())
        for term in self.terms:
            start = tuple(term.starts[row].tolist())
            one = term.index_map
            yield term.keys[row], IndexMap(one.key_shape, one.leaf_shape, start, leaf_start, one.atoms)
