"""Keys that differ only in their indices, found for all keys at once: `h.0.w, h.1.w, …` is one `Bundle`.

What becomes of a key depends on its name but for the numbers in it, mostly. So what is decided for one key of a bundle
is decided for all of them, and 100,000 keys cost what a few do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from bridge._text import template
from bridge._values import Record
from bridge.mapping.keys import Keys, KeyTable
from bridge.mapping.places import Matrix

FEW = 4
"""Smaller bundles are not worth their calls: such keys go one by one."""
_LONGEST = 256  # bytes of a segment, and segments of a key: what is longer is no name of a layer
_DIGITS = 18  # of an index, as `bridge._text.is_index` has it
_DOT, _LINE, _ZERO = b".\n0"
# Odd weights of a hash. What has one hash is compared byte by byte: a collision costs time and nothing else.
_WEIGHTS = np.random.default_rng(0).integers(0, 1 << 63, 2 * _LONGEST + 2, np.uint64) * np.uint64(2) + np.uint64(1)


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
    kinds = table.kinds.astype(np.uint64) * _WEIGHTS[-1]
    _, first, group, count = np.unique(
        folded.hashes + kinds, return_index=True, return_inverse=True, return_counts=True
    )
    order = np.argsort(group, kind="stable")
    stops = np.cumsum(count)
    found: list[tuple[int, int]] = []
    for number in np.flatnonzero(count >= FEW).tolist():
        found.append((int(first[number]), number))
    alone = np.flatnonzero(count[group] < FEW).tolist() if len(order) > sum(count[n] for _, n in found) else []
    for at, number in sorted([*found, *((each, -1) for each in alone)]):
        if number < 0:
            yield at
            continue
        members = order[stops[number] - count[number] : stops[number]]
        numbers = folded.numbers(members, table.kinds)
        if numbers is None:
            yield from members.tolist()  # their hashes are the same and they are not
        else:
            yield Bundle(template(table.names[at])[0], Keys(table, members), numbers)


class _Folded(Record):
    """All names as one text, cut at dots and lines: segment `s` is `text[starts[s] : starts[s] + lengths[s]]`.

    `firsts` are the first segment of each name and, last, how many there are; `indices` says which segments are
    indices; `values` are the values of those, `counted[s]` how many stand before segment `s`.
    """

    text: npt.NDArray[np.uint8]
    starts: npt.NDArray[np.intp]
    lengths: npt.NDArray[np.intp]
    firsts: npt.NDArray[np.intp]
    indices: npt.NDArray[np.bool_]
    values: npt.NDArray[np.int64]
    counted: npt.NDArray[np.intp]
    hashes: npt.NDArray[np.uint64]

    def numbers(self, members: npt.NDArray[np.intp], kinds: npt.NDArray[np.intp]) -> Matrix | None:
        """The indices of some names, if those are the same but for them, and of one kind; else `None`."""
        first = self.firsts[members[0]]
        width = int(self.firsts[members[0] + 1] - first)
        begins = self.firsts[members]
        if (self.firsts[members + 1] - begins != width).any() or (kinds[members] != kinds[members[0]]).any():
            return None
        for place in range(width):
            segments, like = begins + place, first + place
            if (self.indices[segments] != self.indices[like]).any():
                return None
            if self.indices[like]:
                continue
            length = int(self.lengths[like])
            if (self.lengths[segments] != length).any():
                return None
            here = self.text[self.starts[segments][:, None] + np.arange(length)]
            if (here != self.text[self.starts[like] : self.starts[like] + length]).any():
                return None
        count = int(np.count_nonzero(self.indices[first : first + width]))
        return self.values[self.counted[begins][:, None] + np.arange(count)]


def _folded(names: Sequence[str]) -> _Folded | None:
    """`names` cut into segments; `None` where some name is like no layer's."""
    whole = "\n" + "\n".join(names) + "\n"
    text = np.frombuffer(whole.encode(), np.uint8)
    edges = np.flatnonzero((text == _DOT) | (text == _LINE))
    lines = np.flatnonzero(text[edges] == _LINE)
    starts, lengths = edges[:-1] + 1, np.diff(edges) - 1
    if len(lines) != len(names) + 1 or np.diff(lines).max() > _LONGEST or lengths.max() > _LONGEST:
        return None
    digits = np.cumsum((text - np.uint8(_ZERO)) < 10, dtype=np.int32)
    indices = (digits[edges[1:]] - digits[edges[:-1]] == lengths) & (lengths > 0) & (lengths <= _DIGITS)
    indices &= (text[starts] != _ZERO) | (lengths == 1)
    counted = np.concatenate([[0], np.cumsum(indices)])[:-1]
    at, length = starts[indices], lengths[indices]
    values = np.zeros(len(at), np.int64)
    for digit in range(int(length.max(initial=0))):
        longer = np.flatnonzero(length > digit)
        values[longer] = values[longer] * 10 + (text[at[longer] + digit] - np.uint8(_ZERO))
    hashes = np.ones(len(lengths), np.uint64)  # an index, whichever it is
    others = np.flatnonzero(~indices)
    at, length = starts[others], lengths[others]
    total = (length.astype(np.uint64) + np.uint64(1)) * _WEIGHTS[-2]
    for byte in range(int(length.max(initial=0))):
        longer = np.flatnonzero(length > byte)
        total[longer] += _WEIGHTS[byte] * text[at[longer] + byte]
    hashes[others] = total
    place = np.arange(len(lengths)) - np.repeat(lines[:-1], np.diff(lines))
    hashes = np.add.reduceat(hashes * _WEIGHTS[_LONGEST + place], lines[:-1])
    return _Folded(text, starts, lengths, lines, indices, values, counted, hashes)
