"""`BoundRule`: a rule whose wildcards and choices of names are settled, with the names that it was settled for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TypeAlias

import numpy as np

from bridge._text import is_index
from bridge.mapping.arrays import Numbers
from bridge.mapping.names import Family, NameIndex, matched
from bridge.mapping.pattern import MARK, IndexColumns, Mask, NamePattern, encoded
from bridge.rules.check import all_indices
from bridge.rules.rule import Rule
from bridge.rules.syntax import NO_NAME, Choice, Hole, Index, Name, NamePiece, Segment, Selection, Wild, joined

FRESH = (*"ijkn", *(f"i{n}" for n in range(64)))
"""Names for the indices that wildcards carry over."""


class NameRows:
    """Names by number, and the positions of the indices in each."""

    __slots__ = ("columns", "ids")

    def __init__(self, ids: Numbers, columns: IndexColumns) -> None:
        self.ids, self.columns = ids, columns

    def at(self, which: Mask | Numbers) -> NameRows:
        """Some of them."""
        return NameRows(self.ids[which], {name: column[which] for name, column in self.columns.items()})


WildcardTaken: TypeAlias = tuple[str | Hole, ...] | None
"""What a wildcard took, as texts and indices; `None` where it took nothing, and `**` no segment at all."""


class BoundRule:
    """A rule for names that differ only in indices: `rows` by key side and branch of the choices that axes hold.

    `leaf` is the leaf side's name with what the wildcards took written out, `keys` are those of the key sides; choices
    that an axis holds stay open in them.
    """

    def __init__(self, number: int, names: Sequence[Name], settled: NameChoices) -> None:
        self.rule, self.number, self.sizes = settled.rule, number, settled.sizes
        self.rows: dict[tuple[int, int], list[NameRows]] = {}
        self._names, self._settled = names, settled
        leaf = settled.rule.leaf
        self.leaf = None if leaf is None else settled.spelled(leaf.name, -1)

    @cached_property
    def keys(self) -> tuple[Name, ...]:
        """The names of the key sides."""
        return tuple(self._settled.spelled(name, side) for side, name in enumerate(self._names))

    def add(self, side: int, branch: int, rows: NameRows) -> None:
        """Add names that one key side matched."""
        self.rows.setdefault((side, branch), []).append(rows)

    def joined(self, side: int, branch: int) -> NameRows:
        """All rows of one side and branch."""
        parts = self.rows[side, branch]
        if len(parts) > 1:
            columns = {name: np.concatenate([part.columns[name] for part in parts]) for name in parts[0].columns}
            self.rows[side, branch] = parts = [NameRows(np.concatenate([part.ids for part in parts]), columns)]
        return parts[0]

    @property
    def ids(self) -> Numbers:
        """The names of all sides and branches."""
        return np.concatenate([part.ids for parts in self.rows.values() for part in parts])

    def dropped(self, side: int) -> list[str]:
        """Indices of a key that the leaf side gives no place: they are axes in front, in the key's order."""
        leaf = self.rule.leaf
        assert leaf is not None
        placed = {index.name for index in all_indices(leaf)}
        return [i.name for i in self._names[side].indices() if i.name not in placed and not i.single]


class NameChoices:
    """What tells one bound rule of a rule from another.

    `taken` is what the wildcards took, in order, `deep` which of them are `**`; `picks` the branch of each choice,
    `None` where an axis holds it; `fixed` positions of indices that stand as text in a name of the leaf; `labels`, of a
    drop, which pairs no choices, the texts of its choices.
    """

    __slots__ = ("deep", "fixed", "labels", "picks", "rule", "sizes", "taken")

    def __init__(
        self,
        rule: Rule,
        sizes: Mapping[str, int],
        taken: tuple[WildcardTaken, ...],
        deep: tuple[bool, ...],
        picks: tuple[int | None, ...],
        fixed: tuple[tuple[str, int], ...],
        labels: tuple[str, ...],
    ) -> None:
        self.rule, self.sizes, self.taken, self.deep = rule, sizes, taken, deep
        self.picks, self.fixed, self.labels = picks, fixed, labels

    def spelled(self, name: Name, side: int) -> Name:
        """The name of a key side, or of the leaf (-1), with everything settled written out."""
        left = {
            deep: iter([t for t, d in zip(self.taken, self.deep, strict=True) if d is deep]) for deep in (False, True)
        }
        choices = iter(self.choices(side))
        segments: list[Segment] = []
        for segment in name.segments:
            first = segment[0] if segment else ""
            if isinstance(first, Wild) and first.deep:
                taken = next(left[True])
                segments += [] if taken is None else _segments(taken)
                continue
            pieces: list[NamePiece] = []
            for piece in segment:
                if isinstance(piece, Wild):
                    pieces += [each for each in next(left[False]) or () if each != ""]
                elif isinstance(piece, Choice):
                    pieces.append(next(choices) or piece)
                elif isinstance(piece, Hole):
                    pieces.append(self.hole(piece))
                else:
                    pieces.append(piece)
            segments.append(joined(pieces))
        return Name(tuple(segments)) if segments else NO_NAME

    def choices(self, side: int) -> list[str | None]:
        """The text of each choice in a side's name, `None` where it stays open."""
        if self.rule.leaf is None:
            return list(self.labels)
        placed = [(pair.places[side], pair, pick) for pair, pick in zip(self.rule.pairing, self.picks, strict=True)]
        shown = {at: None if pick is None else pair.labels[side][pick] for at, pair, pick in placed if at is not None}
        return [shown[at] for at in sorted(shown)]

    def hole(self, hole: Hole) -> Hole | str:
        """A hole with its fixed indices written out."""
        fixed = dict(self.fixed)
        names = [index.name for index in hole.indices]
        if not fixed.keys() & set(names):
            return hole
        columns = {name: np.array([value]) for name, value in fixed.items()}
        if all(name in fixed for name in names):
            return str(int(encoded(hole, self.sizes, columns, 1)[0]))
        alone = [Hole((index,)) for index in hole.indices]
        values = [
            int(encoded(one, self.sizes, columns, 1)[0]) if n in fixed else -1
            for one, n in zip(alone, names, strict=True)
        ]
        return Hole(
            tuple(
                i if v < 0 else Index(i.name, Selection(picked=(v,))) for i, v in zip(hole.indices, values, strict=True)
            )
        )


def _segments(pieces: Sequence[str | Hole]) -> list[Segment]:
    """Pieces with dots in their texts as segments."""
    found: list[list[NamePiece]] = [[]]
    for piece in pieces:
        if isinstance(piece, Hole):
            found[-1].append(piece)
            continue
        first, *others = piece.split(".")
        found[-1] += [first] if first else []
        for other in others:
            found.append([other] if other else [])
    return [tuple(segment) for segment in found]


def carried(text: str, at: int, family: Family, fresh: Iterator[str], columns: IndexColumns) -> tuple[str | Hole, ...]:
    """What a wildcard took, its numbers as new indices, whose columns it adds."""
    if MARK not in text and not any(map(is_index, text.split("."))):
        return (text,)
    pieces: list[str | Hole] = [""]
    for number, segment in enumerate(text.split(".")):
        pieces[-1] = f"{pieces[-1]}." if number else ""
        if segment == MARK:
            column, at = family.numbers[:, at], at + 1
        elif is_index(segment):
            column = np.full(len(family.ids), int(segment), np.int64)
        else:
            pieces[-1] += segment
            continue
        name = next(fresh)
        columns[name] = column
        pieces += [Hole((Index(name),)), ""]
    return tuple(pieces)


def present(name: Name, index: NameIndex, sizes: Mapping[str, int]) -> dict[str, int]:
    """How many there are of the first index of each hole, in the names that match whatever is selected."""
    bare = Name(tuple(tuple(_unselected(piece) for piece in segment) for segment in name.segments))
    pattern = NamePattern(bare)
    found: dict[str, int] = {}
    for family in index.families.values():
        for part in family.singles() if pattern.numeric else (family,):
            match = matched(pattern, part, sizes)
            for hole in (piece for piece in bare.pieces() if isinstance(piece, Hole) and match is not None):
                first = hole.indices[0].name
                assert match is not None
                found[first] = max(found.get(first, 0), int(match.columns[first].max()) + 1)
    return found


def _unselected(piece: NamePiece) -> NamePiece:
    return Hole(tuple(Index(index.name) for index in piece.indices)) if isinstance(piece, Hole) else piece


def resolved(name: Name, counts: Mapping[str, int]) -> Name:
    """The name with selections that count from the end written as what they came to."""

    def index(index: Index) -> Index:
        if index.selection is None or index.name not in counts:
            return index
        return Index(index.name, index.selection.resolved(counts[index.name]), index.at)

    def piece(piece: NamePiece) -> NamePiece:
        return Hole(tuple(map(index, piece.indices))) if isinstance(piece, Hole) else piece

    return Name(tuple(tuple(map(piece, segment)) for segment in name.segments))
