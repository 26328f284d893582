"""A side's name as a pattern: which names it matches, and what its variables are there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bridge._errors import RuleError
from bridge.rules.parse import Parser
from bridge.rules.syntax import Choice, Hole, Name, Piece, Wild

_NUMBER = "(0|[1-9][0-9]*)"


class Pattern:
    """The compiled form of a `Name`.

    `match` returns the texts of its holes, choices and wildcards, in the order in which they stand in the name.
    """

    __slots__ = ("_regex", "prefix", "variables")

    def __init__(self, name: Name) -> None:
        self.variables: tuple[Hole | Choice | Wild, ...] = tuple(p for p in name.pieces() if not isinstance(p, str))
        # Every segment ends in a dot here, so that `**` may be no segment at all.
        text = "".join("".join(map(_piece, segment)) + _end(segment) for segment in name.segments)
        self._regex = re.compile(text, re.DOTALL)
        first = next(iter(name.pieces()), "")
        self.prefix = first if isinstance(first, str) else ""

    def match(self, name: str) -> tuple[str, ...] | None:
        """The variables' texts where the pattern matches the whole of `name`, else `None`."""
        # Most names fail at their first characters, which costs far less to see than to ask the regex.
        if not name.startswith(self.prefix):
            return None
        found = self._regex.fullmatch(name + ".")
        return None if found is None else found.groups()


def _piece(piece: Piece) -> str:
    if isinstance(piece, str):
        return re.escape(piece)
    if isinstance(piece, Hole):
        return _NUMBER
    if isinstance(piece, Choice):
        return "(" + "|".join(map(re.escape, piece.labels)) + ")"
    return r"((?:[^.]*\.)*?)" if piece.deep else "([^.]*)"


def _end(segment: tuple[Piece, ...]) -> str:
    return "" if len(segment) == 1 and isinstance(segment[0], Wild) and segment[0].deep else r"\."


@dataclass(frozen=True, slots=True)
class Names:
    """A set of names given by patterns: what `allow_missing`, `allow_unexpected` and the like take."""

    texts: tuple[str, ...]
    patterns: tuple[Pattern, ...]

    @classmethod
    def of(cls, texts: Iterable[str] | str) -> Names:
        """Patterns such as `"head.**"` or `"**.inv_freq"`. **Raises:** `RuleError` for one that is none."""
        texts = (texts,) if isinstance(texts, str) else tuple(texts)
        return cls(texts, tuple(Pattern(read_pattern(text)) for text in texts))

    def __contains__(self, name: str) -> bool:
        return any(pattern.match(name) is not None for pattern in self.patterns)


def read_pattern(text: str) -> Name:
    """One name pattern, as a rule would hold it. **Raises:** `RuleError`."""
    if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise RuleError(f"a name pattern is a text such as 'head.**', not {type(text).__name__}: {text!r}")
    parser = Parser(text)
    side = parser.side("a name, such as 'head.**'")
    if parser.at < len(text) or side.axes is not None:
        parser.fail("a name pattern ends here", parser.at)
    return side.name


@dataclass(frozen=True, slots=True)
class Codec:
    """A hole's number and the positions of its indices: `l = 6 g + i` and back, with selections undone.

    `counts[k]` is how many of index `k` there are before selecting; `chosen[k]` the values that are selected.
    """

    counts: tuple[int, ...]
    chosen: tuple[range | tuple[int, ...], ...]

    @classmethod
    def of(cls, hole: Hole, counts: Mapping[str, int]) -> Codec:
        """The codec of `hole`, with `counts` of its indices by name."""
        sizes = tuple(counts[index.name] for index in hole.indices)
        pairs = zip(hole.indices, sizes, strict=True)
        return cls(sizes, tuple(range(n) if i.selection is None else i.selection.positions(n) for i, n in pairs))

    def decode(self, number: int) -> tuple[int, ...] | None:
        """The position of each index within its selection; `None` where one is not selected."""
        values: list[int] = []
        for count in self.counts[:0:-1]:
            number, value = divmod(number, count)
            values.append(value)
        values.append(number)
        positions: list[int] = []
        for value, chosen in zip(reversed(values), self.chosen, strict=True):
            if value not in chosen:
                return None
            positions.append(chosen.index(value))
        return tuple(positions)

    def encode(self, positions: Iterable[int]) -> int | None:
        """The number that these positions make; `None` where one lies outside its selection."""
        number = 0
        for position, chosen, count in zip(positions, self.chosen, self.counts, strict=True):
            if position >= len(chosen):
                return None
            number = number * count + chosen[position]
        return number


def outermost(hole: Hole, number: int, sizes: dict[str, int]) -> int:
    """The value of the hole's first index where its number is `number`."""
    for index in hole.indices[1:]:
        number //= sizes[index.name]
    return number
