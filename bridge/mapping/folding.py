"""Keys that differ only in their indices, found for all keys at once: `h.0.w, h.1.w, …` is one `Bundle`.

What becomes of a key depends on its name but for the numbers in it, mostly. So what is decided for one key of a bundle
is decided for all of them, and 100,000 keys cost what a few do.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from functools import cached_property
from itertools import count
from typing import TYPE_CHECKING

import numpy as np

from bridge._text import template
from bridge._values import Record
from bridge.mapping.keys import Keys, KeyTable, Numbers
from bridge.mapping.places import Matrix

if TYPE_CHECKING:
    import numpy.typing as npt

FEW = 4
"""Smaller bundles are not worth their calls: such keys go one by one."""
_DIGITS = 18  # of an index, as `bridge._text.is_index` has it
_DOT, _LINE, _ZERO = b".\n0"
_MARK = 0xFF  # stands for an index: no byte of UTF-8


class Bundle:
    """Keys of one dtype and shape whose names differ only in indices.

    `text` is the name with `{}` for each index; `numbers`, shape `(keys, indices)`, are the indices.
    """

    def __init__(self, text: str, keys: Keys, numbers: Matrix) -> None:
        self.text, self.keys, self.numbers = text, keys, numbers

    @cached_property
    def probe(self) -> tuple[str, dict[int, int]]:
        """A key like these whose indices are numbers that stand nowhere else in it, and the column of each."""
        count, first = self.numbers.shape[1], 10 ** (_DIGITS - 1)
        while any(str(number) in self.text for number in range(first, first + count)):
            first += count
        pieces, fresh = self.keys[0].split("."), iter(range(first, first + count))
        for place, piece in enumerate(self.text.split(".")):
            if piece == "{}":
                pieces[place] = str(next(fresh))
        return ".".join(pieces), {first + column: column for column in range(count)}

    def columns(self, columns: Sequence[int]) -> Matrix:
        """Some columns of the numbers; `~n` is a column of which every row is `n`."""
        if all(column >= 0 for column in columns):
            return self.numbers[:, list(columns)]
        found = [self.numbers[:, c] if c >= 0 else np.full(len(self.numbers), ~c, np.int64) for c in columns]
        return np.stack(found, axis=1)


def bundles(table: KeyTable) -> Iterator[Bundle | int]:
    """All keys, in the order in which they or the first of their bundle stand; a number is a key by itself."""
    folded = _folded(table.names) if len(table) >= FEW else None
    if folded is None:
        yield from range(len(table))
        return
    leaders = _leaders(folded.texts)
    if (table.kinds != table.kinds[leaders]).any():
        leaders = _leaders(list(zip(folded.texts, table.kinds.tolist(), strict=True)))
    order = np.argsort(leaders, kind="stable")
    sizes = np.bincount(leaders, minlength=len(table))
    stops = np.cumsum(sizes)
    for number in np.flatnonzero((sizes >= FEW) | (sizes[leaders] < FEW)).tolist():
        if sizes[number] < FEW:
            yield number
            continue
        members = order[stops[number] - sizes[number] : stops[number]]
        yield Bundle(template(table.names[number])[0], Keys(table, members), folded.numbers(members))


def _leaders(values: Sequence[Hashable]) -> Numbers:
    """For each value the number of the first one that is equal."""
    known: dict[Hashable, int] = {}
    return np.fromiter(map(known.setdefault, values, count()), np.intp, len(values))


class _Folded(Record):
    """All names with a mark in place of each index: `texts`. The indices of name `n` are, in their order,
    `values[firsts[n] : firsts[n + 1]]`.
    """

    texts: list[bytes]
    values: npt.NDArray[np.int64]
    firsts: Numbers

    def numbers(self, members: Numbers) -> Matrix:
        """The indices of names that have as many."""
        first = self.firsts[members]
        return self.values[first[:, None] + np.arange(self.firsts[members[0] + 1] - first[0])]


def _folded(names: Sequence[str]) -> _Folded | None:
    """`names` as one text, cut at dots and lines into segments; `None` where a name holds a line's end."""
    text = np.frombuffer(("\n" + "\n".join(names) + "\n").encode(), np.uint8)
    is_line = text == _LINE
    edges = np.flatnonzero((text == _DOT) | is_line)
    lines = np.flatnonzero(is_line[edges])
    if len(lines) != len(names) + 1:
        return None
    starts, lengths = edges[:-1] + 1, np.diff(edges) - 1
    is_digit = (text - np.uint8(_ZERO)) < 10
    digits = np.cumsum(is_digit, dtype=np.int32)
    indices = (digits[edges[1:]] - digits[edges[:-1]] == lengths) & (lengths > 0) & (lengths <= _DIGITS)
    indices &= (text[starts] != _ZERO) | (lengths == 1)
    at, length = starts[indices], lengths[indices]
    values = np.zeros(len(at), np.int64)
    for digit in range(int(length.max(initial=0))):
        longer = np.flatnonzero(length > digit)
        values[longer] = values[longer] * 10 + (text[at[longer] + digit] - np.uint8(_ZERO))
    # Of an index its first digit stays, as the mark.
    kept = ~(np.repeat(indices, lengths + 1) & is_digit[:-1])
    kept[at] = True
    marked = text.copy()
    marked[at] = _MARK
    texts = marked[:-1][kept].tobytes().split(b"\n")[1:]
    return _Folded(texts, values, np.concatenate([[0], np.cumsum(indices)])[lines])
