"""Names by the thousand: folded into families that differ only in numbers, and found and written as columns.

What becomes of a name depends on everything in it but the numbers, mostly. So what is decided for one name of a family
is decided for all of them, and 100,000 keys cost what a few do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import count

import numpy as np

from bridge._text import is_index
from bridge.mapping.arrays import Numbers
from bridge.mapping.pattern import (
    DIGITS,
    MARK,
    Column,
    IndexColumns,
    Mask,
    Matrix,
    NamePattern,
    decoded,
    hole_of,
    number_of,
)
from bridge.rules.syntax import Choice, Hole, Name

_DOT, _LINE, _ZERO = b".\n0"
_MARK = b"\xff"  # no byte of UTF-8
_ESCAPED = MARK.encode(errors="surrogatepass")


class Family:
    """Names that differ only in segments that are numbers. `text` has `MARK` for each of them.

    Row `i` is name `ids[i]`; its numbers, in their order, are row `i` of `numbers`, shape `(names, numbers)`.
    """

    __slots__ = ("ids", "numbers", "text")

    def __init__(self, text: str, ids: Numbers, numbers: Matrix) -> None:
        self.text, self.ids, self.numbers = text, ids, numbers

    def at(self, rows: Mask | Numbers) -> Family:
        """Some of them."""
        return Family(self.text, self.ids[rows], self.numbers[rows])

    def singles(self) -> Iterator[Family]:
        """Each name by itself, its numbers as text."""
        for row in range(len(self.ids)):
            parts = self.text.split(MARK)
            text = "".join(a + b for a, b in zip(parts, [*map(str, self.numbers[row].tolist()), ""], strict=True))
            yield Family(text, self.ids[row : row + 1], _NONE)


_NONE = np.empty((1, 0), np.int64)


class NameIndex:
    """All names of one side, a checkpoint's keys or a model's leaves, by family."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self.families: dict[str, Family] = {}
        folded = _folded(names)
        first: dict[bytes, int] = {}
        groups = np.fromiter(map(first.setdefault, folded.texts, _fresh(first)), np.intp, len(names))
        order = np.argsort(groups, kind="stable")
        stops: list[int] = np.cumsum(np.bincount(groups, minlength=len(first))).tolist()
        start = 0
        for raw, stop in zip(first, stops, strict=True):
            text = raw.replace(_MARK, _ESCAPED).decode(errors="surrogatepass")
            ids = order[start:stop]
            numbers = folded.numbers(ids, text.count(MARK))
            self.families[text] = Family(text, ids, numbers)
            start = stop

    def match(self, name: Name, sizes: Mapping[str, int]) -> tuple[Numbers, IndexColumns]:
        """The names that a name of texts and indices spells, and the positions of its indices in each."""
        text = family_text(name)
        if text is not None:
            family = self.families.get(text)
            found = [] if family is None else [_rows(name, family, sizes)]
        else:
            pattern = NamePattern(name)
            matches = [matched(pattern, family, sizes) for family in self.families.values()]
            found = [(match.family.ids, match.columns) for match in matches if match is not None]
        if len(found) == 1:
            return found[0]
        if not found:
            return np.empty(0, np.intp), {index.name: np.empty(0, np.int64) for index in name.indices()}
        columns = {name: np.concatenate([each[name] for _, each in found]) for name in found[0][1]}
        return np.concatenate([ids for ids, _ in found]), columns


def _fresh(known: Mapping[bytes, int]) -> Iterator[int]:
    """The number that the next new key of `known` gets."""
    while True:
        yield len(known)


def _rows(name: Name, family: Family, sizes: Mapping[str, int]) -> tuple[Numbers, IndexColumns]:
    """The rows of the one family that a name without parts of segments lies in."""
    mask: Mask | None = None
    columns: IndexColumns = {}
    at = count()
    for segment in name.segments:
        hole, number = hole_of(segment), number_of(segment)
        if hole is not None:
            inside, positions = decoded(hole, sizes, family.numbers[:, next(at)])
            mask = both(mask, inside)
            columns |= zip((index.name for index in hole.indices), positions, strict=True)
        elif number is not None:
            mask = both(mask, family.numbers[:, next(at)] == number)
    if mask is None or mask.all():
        return family.ids, columns
    return family.ids[mask], {index: column[mask] for index, column in columns.items()}


def family_text(name: Name) -> str | None:
    """The text of the family that a name of texts and indices lies in; `None` where an index is part of a segment."""
    texts: list[str] = []
    for segment in name.segments:
        if hole_of(segment) is not None or number_of(segment) is not None:
            texts.append(MARK)
        elif all(isinstance(piece, str) for piece in segment):
            texts.append("".join(map(str, segment)))
        else:
            return None
    return ".".join(texts)


class NameMatch:
    """What a pattern found in a family: the names, positions of the indices, and what the other variables took.

    `wilds` are the texts of the wildcards, with `MARK` for numbers, each with the column of its first number.
    """

    __slots__ = ("columns", "family", "labels", "mask", "wilds")

    def __init__(
        self, family: Family, mask: Mask | None, columns: IndexColumns, wilds: list[tuple[str, int]], labels: list[str]
    ) -> None:
        self.family, self.mask, self.columns, self.wilds, self.labels = family, mask, columns, wilds, labels


def matched(pattern: NamePattern, family: Family, sizes: Mapping[str, int]) -> NameMatch | None:
    """The names of a family that a pattern matches; `mask` says which, `None` where it is all of them."""
    found = pattern.find(family.text)
    if found is None:
        return None
    mask: Mask | None = None
    columns: IndexColumns = {}
    wilds: list[tuple[str, int]] = []
    labels: list[str] = []
    for number, group in enumerate(pattern.groups, 1):
        text = found[number]
        if isinstance(group, int | Hole):
            if text == MARK:
                column = family.numbers[:, family.text.count(MARK, 0, found.start(number))]
            else:
                column = np.full(len(family.ids), int(text), np.int64)
            if isinstance(group, int):
                mask = both(mask, column == group)
            else:
                inside, positions = decoded(group, sizes, column)
                mask = both(mask, inside)
                columns |= zip((index.name for index in group.indices), positions, strict=True)
        elif isinstance(group, Choice):
            labels.append(text)
        else:
            wilds.append((text, family.text.count(MARK, 0, found.start(number))))
    if mask is not None:
        if not mask.any():
            return None
        if mask.all():
            mask = None
        else:
            family, columns = family.at(mask), {name: column[mask] for name, column in columns.items()}
    return NameMatch(family, mask, columns, wilds, labels)


def both(one: Mask | None, other: Mask | None) -> Mask | None:
    """Rows that two masks choose; `None` is all of them."""
    return other if one is None else one if other is None else one & other


class _Folded:
    """All names with `_MARK` in place of each number: `texts`. The numbers of name `n` are, in their order,
    `values[firsts[n] : firsts[n + 1]]`.
    """

    __slots__ = ("firsts", "texts", "values")

    def __init__(self, texts: Sequence[bytes], values: Column, firsts: Numbers) -> None:
        self.texts, self.values, self.firsts = texts, values, firsts

    def numbers(self, ids: Numbers, width: int) -> Matrix:
        """The numbers of names that have `width` of them."""
        return self.values[self.firsts[ids][:, None] + np.arange(width)] if width else np.empty((len(ids), 0), np.int64)


def _folded(names: Sequence[str]) -> _Folded:
    """Every name's text and numbers: `names` as one text, cut at dots and lines into segments."""
    text = np.frombuffer(("\n" + "\n".join(names) + "\n").encode(errors="surrogatepass"), np.uint8)
    is_line = text == _LINE
    edges = np.flatnonzero((text == _DOT) | is_line)
    lines = np.flatnonzero(is_line[edges])
    if len(lines) != len(names) + 1:
        return _folded_with_lines(names)
    starts, lengths = edges[:-1] + 1, np.diff(edges) - 1
    is_digit = (text - np.uint8(_ZERO)) < 10
    digits = np.cumsum(is_digit, dtype=np.int32)
    numbers = (digits[edges[1:]] - digits[edges[:-1]] == lengths) & (lengths > 0) & (lengths <= DIGITS)
    numbers &= (text[starts] != _ZERO) | (lengths == 1)
    at, length = starts[numbers], lengths[numbers]
    values = np.zeros(len(at), np.int64)
    for digit in range(int(length.max(initial=0))):
        longer = np.flatnonzero(length > digit)
        values[longer] = values[longer] * 10 + (text[at[longer] + digit] - np.uint8(_ZERO))
    # Of a number its first digit stays, as the mark.
    kept = ~(np.repeat(numbers, lengths + 1) & is_digit[:-1])
    kept[at] = True
    marked = text.copy()
    marked[at] = _MARK[0]
    texts = marked[:-1][kept].tobytes().split(b"\n")[1:]
    return _Folded(texts, values, np.concatenate([[0], np.cumsum(numbers)])[lines])


def _folded_with_lines(names: Sequence[str]) -> _Folded:
    """The same where a name holds a line's end: name by name."""
    texts: list[bytes] = []
    values: list[int] = []
    firsts = [0]
    for name in names:
        segments = name.split(".")
        values += [int(segment) for segment in segments if is_index(segment)]
        firsts.append(len(values))
        text = ".".join(MARK if is_index(segment) else segment for segment in segments)
        texts.append(text.encode(errors="surrogatepass").replace(_ESCAPED, _MARK))
    return _Folded(texts, np.array(values, np.int64), np.array(firsts, np.intp))
