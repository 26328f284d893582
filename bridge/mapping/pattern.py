"""Names as patterns: which names they match, what their variables are there, and the numbers in them as columns."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from bridge._text import is_index
from bridge.mapping.arrays import Numbers
from bridge.rules.parse import parse_pattern
from bridge.rules.syntax import Choice, Hole, Index, Name, NamePiece, Segment, Wild

if TYPE_CHECKING:
    import numpy.typing as npt

MARK = "\udcff"
"""Stands for a number in the text of a family of names. No key has it: it is no character that UTF-8 can write."""

_NUMBER = f"({MARK}|0|[1-9][0-9]{{0,17}})"
_DEEP = r"((?:[^.]*\.)*?)"
_STAR = "([^.]*?)"

Variable = Hole | Choice | Wild | int
"""What a group of a pattern stands for; an int is a number that the pattern itself names."""


class NamePattern:
    """The compiled form of a `Name`, for names and for the texts of families, which have `MARK` for each number.

    The first wildcard of a kind takes as little as it can, then the second, and so on.
    """

    __slots__ = ("groups", "numeric", "prefix", "regex")

    def __init__(self, name: Name) -> None:
        self.groups: list[Variable] = []
        # Every segment ends in a dot here, so that `**` may be no segment at all.
        chunks = _split([_DEEP if _is_deep(segment) else self._segment(segment) for segment in name.segments], _DEEP)
        self.regex = re.compile(_settling(chunks, _DEEP), re.DOTALL)
        for segment in name.segments:
            number = number_of(segment)
            self.groups += (
                [number] if number is not None else [piece for piece in segment if not isinstance(piece, str)]
            )
        # Whether some segment matches some numbers and not others, in a way that only the text of a number tells.
        self.numeric = any(map(_is_numeric, name.segments))
        first = next(iter(name.segments[0]), "")
        self.prefix = first if isinstance(first, str) and number_of(name.segments[0]) is None else ""

    @property
    def variables(self) -> tuple[Hole | Choice | Wild, ...]:
        """The indices, choices and wildcards, in the order in which they stand in the name."""
        return tuple(group for group in self.groups if not isinstance(group, int))

    def find(self, text: str) -> re.Match[str] | None:
        """The match with the whole of a name, or of a family's text; group `n + 1` is `groups[n]`."""
        # Most names fail at their first characters, which costs far less to see than to ask the regex.
        return self.regex.fullmatch(text + ".") if text.startswith(self.prefix) else None

    def match(self, name: str) -> tuple[str, ...] | None:
        """The texts of the variables where the pattern matches the whole of `name`, else `None`."""
        found = self.find(name)
        if found is None:
            return None
        pairs = zip(self.groups, found.groups(), strict=True)
        return tuple(text for group, text in pairs if not isinstance(group, int))

    def _segment(self, segment: Segment) -> str:
        number = number_of(segment)
        if number is not None:
            return rf"({MARK}|{number})\."
        found = _settling(_split([*map(_piece, segment), r"\."], _STAR), _STAR)
        # A segment ends at the next dot, however its parts are read: one reading of it is enough.
        return found if any(isinstance(p, Choice) and p.dotted for p in segment) else f"(?>{found})"


def number_of(segment: Segment) -> int | None:
    """The number that a segment of plain text is."""
    if len(segment) == 1 and isinstance(segment[0], str) and is_index(segment[0]):
        return int(segment[0])
    return None


def hole_of(segment: Segment) -> Hole | None:
    """The index, or the composition of indices, that a segment is, and nothing else."""
    return segment[0] if len(segment) == 1 and isinstance(segment[0], Hole) else None


def _settling(chunks: Sequence[str], wild: str) -> str:
    """Chunks with a wildcard between each two.

    What follows a wildcard is settled where it first fits (an atomic group), unless it is the last: if the rest of the
    name fits anywhere behind, it fits behind the first. So matching never takes more than a few passes over a name.
    """
    first, *others = chunks
    inner = "".join(f"(?>{wild}{chunk})" for chunk in others[:-1])
    return first + inner + "".join(wild + chunk for chunk in others[-1:])


def _split(texts: Sequence[str], wild: str) -> list[str]:
    """Texts joined to chunks, divided where `wild` stands."""
    chunks = [""]
    for text in texts:
        if text == wild:
            chunks.append("")
        else:
            chunks[-1] += text
    return chunks


def _is_deep(segment: Segment) -> bool:
    return len(segment) == 1 and isinstance(segment[0], Wild) and segment[0].deep


def _is_numeric(segment: Segment) -> bool:
    if not segment or (len(segment) == 1 and isinstance(segment[0], Hole | Wild)) or number_of(segment) is not None:
        return False
    # One piece of text that is no digits, and no number matches.
    labels = [(p,) if isinstance(p, str) else p.labels for p in segment if isinstance(p, str | Choice)]
    return all(any(text.isdigit() for text in texts) for texts in labels)


def _piece(piece: NamePiece) -> str:
    if isinstance(piece, str):
        return re.escape(piece)
    if isinstance(piece, Hole):
        return _NUMBER
    if isinstance(piece, Choice):
        return "(" + "|".join(map(re.escape, piece.labels)) + ")"
    return _STAR


class NamePatterns:
    """A set of names given by patterns: what `allow_missing`, `allow_unexpected` and the like take."""

    def __init__(self, texts: tuple[str, ...], patterns: tuple[NamePattern, ...]) -> None:
        self.texts, self.patterns = texts, patterns

    @classmethod
    def of(cls, texts: Iterable[str] | str) -> NamePatterns:
        """Patterns such as `"head.**"` or `"**.inv_freq"`. **Raises:** `RuleError` for one that is none."""
        texts = (texts,) if isinstance(texts, str) else tuple(texts)
        return cls(texts, tuple(NamePattern(parse_pattern(text)) for text in texts))

    def __contains__(self, name: str) -> bool:
        return any(pattern.find(name) is not None for pattern in self.patterns)


Column: TypeAlias = "npt.NDArray[np.int64]"
Matrix: TypeAlias = "npt.NDArray[np.int64]"
Mask: TypeAlias = "npt.NDArray[np.bool_]"
IndexColumns = dict[str, Column]
"""Positions of indices by name, a row for each name."""

OPEN = 1 << 62
"""How many indices there may be where nothing counts them."""
DIGITS = 18
"""Of an index at most, as `bridge._text.is_index` has it."""
_LARGEST = 10**DIGITS - 1


class _Codec:
    """For each index of a hole how many there are, and those that its selection picks, in order."""

    __slots__ = ("chosen", "counts", "plain")

    def __init__(self, counts: tuple[int, ...], chosen: tuple[range | tuple[int, ...], ...], plain: bool) -> None:
        self.counts, self.chosen, self.plain = counts, chosen, plain


def _codec(hole: Hole, sizes: Mapping[str, int]) -> _Codec:
    return _made(hole.indices, tuple([sizes.get(index.name, OPEN) for index in hole.indices]))


@lru_cache(maxsize=4096)
def _made(indices: tuple[Index, ...], counts: tuple[int, ...]) -> _Codec:
    pairs = zip(indices, counts, strict=True)
    chosen = tuple(range(n) if i.selection is None else i.selection.positions(n) for i, n in pairs)
    return _Codec(counts, chosen, len(indices) == 1 and chosen[0] == range(OPEN))


def decoded(hole: Hole, sizes: Mapping[str, int], column: Column) -> tuple[Mask | None, list[Column]]:
    """For numbers in a name the positions of the hole's indices, and which numbers are selected (`None`: all).

    `sizes` say how many of an index there are before selecting, by its name.
    """
    codec = _codec(hole, sizes)
    if codec.plain:
        return None, [column]
    values: list[Column] = []
    for extent in codec.counts[:0:-1]:
        column, value = np.divmod(column, extent)
        values.append(value)
    values.append(column)
    inside = np.ones(len(column), bool)
    positions: list[Column] = []
    for value, chosen in zip(reversed(values), codec.chosen, strict=True):
        if isinstance(chosen, range):
            position, over = np.divmod(value - chosen.start, chosen.step)
            inside &= (over == 0) & (position >= 0) & (position < len(chosen))
        else:
            place = {number: n for n, number in enumerate(chosen)}
            position = np.array([place.get(number, -1) for number in value.tolist()], np.int64)
            inside &= position >= 0
        positions.append(position)
    return inside, positions


def matches(pattern: NamePattern, sizes: Mapping[str, int], text: str) -> bool:
    """Whether a pattern matches a name, selections of its indices included."""
    found = pattern.match(text)
    for variable, number in zip(pattern.variables, found or (), strict=False):
        if isinstance(variable, Hole):
            inside, _ = decoded(variable, sizes, np.array([int(number)]))
            if inside is not None and not inside[0]:
                return False
    return found is not None


def encoded(hole: Hole, sizes: Mapping[str, int], columns: Mapping[str, Column], rows: int) -> Column:
    """The numbers that positions make; -1 where one lies outside its selection. An index without a column is 0."""
    codec = _codec(hole, sizes)
    if codec.plain and hole.indices[0].name in columns:
        return columns[hole.indices[0].name]
    number, outside = np.zeros(rows, np.int64), np.zeros(rows, bool)
    for index, chosen, extent in zip(hole.indices, codec.chosen, codec.counts, strict=True):
        position = columns.get(index.name, np.zeros(rows, np.int64))
        outside |= (position >= len(chosen)) | (number > _LARGEST // extent)
        if isinstance(chosen, range):
            value = chosen.start + chosen.step * np.where(outside, 0, position) if len(chosen) else position
        else:
            value = np.array([chosen[p] if p < len(chosen) else 0 for p in position.tolist()], np.int64)
        number = np.where(outside, 0, number) * (extent if extent <= _LARGEST else 1) + value
    return np.where(outside | (number > _LARGEST), -1, number)


def formatted(name: Name, sizes: Mapping[str, int], columns: Mapping[str, Column], rows: int) -> list[str]:
    """The names that a name of texts and indices spells for rows of positions."""
    parts: list[str | list[str]] = []
    for number, segment in enumerate(name.segments):
        parts += ["."] if number else []
        for piece in segment:
            if isinstance(piece, Hole):
                parts.append(list(map(str, encoded(piece, sizes, columns, rows).tolist())))
            else:
                parts.append(str(piece))
    if all(isinstance(part, str) for part in parts):
        return ["".join(map(str, parts))] * rows
    texts = [[part] * rows if isinstance(part, str) else part for part in parts]
    return ["".join(row) for row in zip(*texts, strict=True)]


def located(rows: Sequence[Column], among: Matrix, count: int) -> Numbers:
    """For each of `count` rows of numbers, given by columns, the row of `among` that is equal; -1 where none is.

    The rows of `among` are all different.
    """
    if not rows:
        return np.full(count, 0 if len(among) else -1, np.intp)
    if not len(among):
        return np.full(count, -1, np.intp)
    low, high = among.min(axis=0), among.max(axis=0)
    inside = np.ones(count, bool)
    wanted, known = np.zeros(count, np.int64), np.zeros(len(among), np.int64)
    width = 1
    for axis, column in enumerate(rows):
        inside &= (column >= low[axis]) & (column <= high[axis])
        extent = int(high[axis] - low[axis]) + 1
        if width * extent >= OPEN:
            return _located_one_by_one(rows, among)
        width *= extent
        wanted = wanted * extent + (np.where(inside, column, low[axis]) - low[axis])
        known = known * extent + (among[:, axis] - low[axis])
    if width <= 4 * len(among) + 1024:
        place = np.full(width, -1, np.intp)
        place[known] = np.arange(len(among))
        return np.where(inside, place[wanted], -1)
    order = np.argsort(known, kind="stable")
    at = np.minimum(np.searchsorted(known, wanted, sorter=order), len(among) - 1)
    found = order[at]
    return np.where(inside & (known[found] == wanted), found, -1)


def _located_one_by_one(rows: Sequence[Column], among: Matrix) -> Numbers:
    listed: list[list[int]] = among.tolist()
    place: dict[tuple[int, ...], int] = {tuple(row): n for n, row in enumerate(listed)}
    wanted = zip(*(column.tolist() for column in rows), strict=True)
    return np.array([place.get(row, -1) for row in wanted], np.intp)
