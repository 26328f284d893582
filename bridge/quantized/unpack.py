"""Codes of 2 to 8 bits out of words of 32: in a row without gaps, or so many to a word."""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

import numpy as np

from bridge.quantized.view import Array, Scratch


@dataclass(frozen=True, slots=True)
class Packing:
    """How codes lie in little-endian words of 32 bits, the earliest in the lowest bits.

    - `bits`: of a code.
    - `dense`: whether a code may cross from one word into the next; else the top bits of a word are unused.
    """

    bits: int
    dense: bool = True

    @property
    def period(self) -> tuple[int, int]:
        """The fewest codes that fill whole words, and those words."""
        if not self.dense:
            return 32 // self.bits, 1
        common = gcd(self.bits, 32)
        return 32 // common, self.bits // common

    def words(self, count: int) -> int:
        """How many words `count` codes take."""
        return -(-count * self.bits // 32) if self.dense else -(-count // (32 // self.bits))

    def behind(self, span: range) -> range:
        """The words that hold the codes of `span`, from the start of a period on."""
        codes, words = self.period
        start = span.start // codes * words
        return range(start, max(self.words(span.stop), start)) if span else range(start, start)

    def unpack(self, words: Array, span: range, scratch: Scratch, name: str = "codes") -> Array:
        """The codes of `span` as uint8.

        **Arguments:**

        - `words`: shape `(rows, words)`, of 4 bytes: those that `behind` names.
        - `span`: which codes of a row.
        - `scratch`: where the result lies, under `name`.

        **Returns:** shape `(rows, len(span))`.
        """
        skipped = span.start % self.period[0]
        if not self.dense:
            codes = self._sparse(words, scratch, name)
        elif self.bits == 8:
            codes = np.ascontiguousarray(words).view(np.uint8)
        elif self.bits == 4:
            codes = nibbles(np.ascontiguousarray(words).view(np.uint8), scratch, name)
        elif self.bits == 2:
            codes = _quarters(np.ascontiguousarray(words).view(np.uint8), scratch, name)
        else:
            codes = self._crossing(words, scratch, name, skipped + len(span))
        return codes[:, skipped : skipped + len(span)]

    def _sparse(self, words: Array, scratch: Scratch, name: str) -> Array:
        each, mask = 32 // self.bits, (1 << self.bits) - 1
        codes = scratch.take(name, (*words.shape, each), np.uint8)
        for number in range(each):
            codes[:, :, number] = (words.view(np.uint32) >> np.uint32(number * self.bits)) & np.uint32(mask)
        return codes.reshape(len(words), -1)

    def _crossing(self, words: Array, scratch: Scratch, name: str, count: int) -> Array:
        """Eight codes take `bits` bytes: these are put into 8 bytes of their own, and shifted out of them."""
        eights = -(-count // 8)
        stored = np.ascontiguousarray(words).view(np.uint8)[:, : eights * self.bits]
        wide = scratch.take("eights", (len(words), eights, 8), np.uint8)
        wide[:] = 0
        full, rest = divmod(stored.shape[1], self.bits)
        wide[:, :full, : self.bits] = stored[:, : full * self.bits].reshape(len(words), full, self.bits)
        if rest:
            wide[:, full, :rest] = stored[:, full * self.bits :]
        together = wide.view(np.uint64)[:, :, 0]
        codes = scratch.take(name, (len(words), eights, 8), np.uint8)
        for number in range(8):
            codes[:, :, number] = (together >> np.uint64(number * self.bits)) & np.uint64((1 << self.bits) - 1)
        return codes.reshape(len(words), -1)


_SHIFT = 80
"""Rows that are read column by column lie this many bytes further apart: at 2^n bytes they share few lines of a cache,
and take four times as long.
"""


def loose(stored: Array, scratch: Scratch) -> Array:
    """A copy, of two axes, that is to be read column by column."""
    rows, columns = stored.shape
    wide = scratch.take("loose", (rows, columns + _SHIFT // stored.itemsize), stored.dtype)
    np.copyto(wide[:, :columns], stored)
    return wide[:, :columns]


def turned(words: Array, scratch: Scratch) -> Array:
    """`words.T` as uint32, C-contiguous."""
    made = scratch.take("turned", words.shape[::-1], np.uint32)
    np.copyto(made, loose(words.view(np.uint32), scratch).T)
    return made


def nibbles(stored: Array, scratch: Scratch, name: str = "codes") -> Array:
    """The two halves of each byte, the lower first: `(rows, n)` to `(rows, 2 n)`."""
    codes = scratch.take(name, stored.shape, np.uint16)
    np.copyto(codes, stored)
    shifted = scratch.take("shifted", stored.shape, np.uint16)
    np.multiply(codes, 16, out=shifted)  # as a shift, but twice as fast
    np.bitwise_or(codes, shifted, out=codes)
    np.bitwise_and(codes, 0x0F0F, out=codes)
    return codes.view(np.uint8)


def _quarters(stored: Array, scratch: Scratch, name: str) -> Array:
    codes = scratch.take(name, stored.shape, np.uint32)
    np.copyto(codes, stored)
    shifted = scratch.take("shifted", stored.shape, np.uint32)
    for distance, mask in ((12, 0x000F000F), (6, 0x03030303)):
        np.left_shift(codes, distance, out=shifted)
        np.bitwise_or(codes, shifted, out=codes)
        np.bitwise_and(codes, mask, out=codes)
    return codes.view(np.uint8)
