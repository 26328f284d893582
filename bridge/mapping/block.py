"""`Block`: tensors that go to one leaf by one index map, or by one for each term of a sum."""

from __future__ import annotations

from collections.abc import Iterator

from bridge._values import NamedTuple, Record, replace
from bridge.mapping.indexmap import IndexMap
from bridge.mapping.keys import Keys
from bridge.mapping.places import Places


class Term(NamedTuple):
    """The key that fills each place of a block; `starts[i]` is where the map starts in the tensor of `keys[i]`."""

    index_map: IndexMap
    keys: Keys
    starts: Places


class Block(Record):
    """Tensors and the places of one leaf that they fill.

    Place `i` of the leaf, the box of the map that starts at `starts[i]`, is `sum(terms[...].keys[i]) * scale + add`.
    All terms cover the same boxes.
    """

    leaf: str
    terms: tuple[Term, ...]
    starts: Places
    scale: float | int = 1
    add: float | int = 0
    tie: bool = False
    copy: bool = False

    @property
    def summed(self) -> bool:
        """Whether a place is the sum of several tensors."""
        return len(self.terms) > 1

    @property
    def valued(self) -> bool:
        """Whether values change, so that the bits of the leaf are not those of the tensors."""
        return self.summed or self.scale != 1 or self.add != 0

    @property
    def uncut(self) -> bool:
        """Whether it is made whole: a sum whose terms run in different orders has no common parts."""
        return any(term.index_map.atoms != self.terms[0].index_map.atoms for term in self.terms[1:])

    def maps(self, place: int) -> Iterator[tuple[str, IndexMap]]:
        """The keys of one place, each with the map that applies to it there."""
        for term in self.terms:
            yield term.keys[place], replace(term.index_map, key_start=term.starts[place], leaf_start=self.starts[place])
