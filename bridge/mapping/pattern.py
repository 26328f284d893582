"""A side's name as a pattern: which names it matches, and what its variables are there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from bridge._values import NamedTuple, Record
from bridge.mapping.places import Row
from bridge.rules.parse import parse_pattern
from bridge.rules.syntax import Choice, Hole, Name, Piece, Segment, Wild

_NUMBER = "(0|[1-9][0-9]{0,17})"

OPEN = 1 << 62
"""How many indices there may be where nothing counts them."""


class Pattern:
    """The compiled form of a `Name`.

    `match` returns the texts of its holes, choices and wildcards, in the order in which they stand in the name. The
    first wildcard of a kind takes as little as it can, then the second, and so on.
    """

    __slots__ = ("_regex", "numeric", "prefix", "variables")

    def __init__(self, name: Name) -> None:
        self.variables: tuple[Hole | Choice | Wild, ...] = tuple(p for p in name.pieces() if not isinstance(p, str))
        # Every segment ends in a dot here, so that `**` may be no segment at all.
        chunks = _split([_DEEP if _is_deep(segment) else _segment(segment) for segment in name.segments], _DEEP)
        self._regex = re.compile(_settling(chunks, _DEEP), re.DOTALL)
        # Whether some segment is one number and no other: then which indices a name has decides whether it matches.
        self.numeric = any(map(_is_numeric, name.segments))
        first = next(iter(name.segments[0]), "")
        self.prefix = first if isinstance(first, str) else ""

    def match(self, name: str) -> tuple[str, ...] | None:
        """The variables' texts where the pattern matches the whole of `name`, else `None`."""
        # Most names fail at their first characters, which costs far less to see than to ask the regex.
        if not name.startswith(self.prefix):
            return None
        found = self._regex.fullmatch(name + ".")
        return None if found is None else found.groups()


_DEEP = r"((?:[^.]*\.)*?)"
_STAR = "([^.]*?)"


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
    """Whether a segment matches some numbers and not others."""
    if not segment or (len(segment) == 1 and isinstance(segment[0], Hole | Wild)):
        return False
    # One piece of text that is no digits, and no number matches.
    labels = [(p,) if isinstance(p, str) else p.labels for p in segment if isinstance(p, str | Choice)]
    return all(any(text.isdigit() for text in texts) for texts in labels)


def _segment(segment: Segment) -> str:
    return _settling(_split([*map(_piece, segment), r"\."], _STAR), _STAR)


def _piece(piece: Piece) -> str:
    if isinstance(piece, str):
        return re.escape(piece)
    if isinstance(piece, Hole):
        return _NUMBER
    if isinstance(piece, Choice):
        return "(" + "|".join(map(re.escape, piece.labels)) + ")"
    return _STAR


class Names(Record):
    """A set of names given by patterns: what `allow_missing`, `allow_unexpected` and the like take."""

    texts: tuple[str, ...]
    patterns: tuple[Pattern, ...]

    @classmethod
    def of(cls, texts: Iterable[str] | str) -> Names:
        """Patterns such as `"head.**"` or `"**.inv_freq"`. **Raises:** `RuleError` for one that is none."""
        texts = (texts,) if isinstance(texts, str) else tuple(texts)
        return cls(texts, tuple(Pattern(parse_pattern(text)) for text in texts))

    def __contains__(self, name: str) -> bool:
        return any(pattern.match(name) is not None for pattern in self.patterns)


class Codec(NamedTuple):
    """A hole's number and the positions of its indices: `l = 6 g + i` and back, with selections undone.

    `counts[k]` is how many of index `k` there are before selecting; `chosen[k]` the values that are selected.
    """

    counts: tuple[int, ...]
    chosen: tuple[range | tuple[int, ...], ...]
    plain: bool = False

    @classmethod
    def of(cls, hole: Hole, counts: Mapping[str, int]) -> Codec:
        """The codec of `hole`, with `counts` of its indices by name; `OPEN` for one that nothing counts."""
        sizes = tuple(counts.get(index.name, OPEN) for index in hole.indices)
        pairs = zip(hole.indices, sizes, strict=True)
        chosen = tuple(range(n) if i.selection is None else i.selection.positions(n) for i, n in pairs)
        return cls(sizes, chosen, chosen == (range(OPEN),))

    def decode(self, number: int) -> Row | None:
        """The position of each index within its selection; `None` where one is not selected."""
        if self.plain:
            return (number,)
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

    def encode(self, positions: Sequence[int]) -> int | None:
        """The number that these positions make; `None` where one lies outside its selection."""
        number = 0
        for position, chosen, count in zip(positions, self.chosen, self.counts, strict=True):
            if position >= len(chosen):
                return None
            number = number * count + chosen[position]
        return number


def outermost(hole: Hole, number: int, sizes: Mapping[str, int]) -> int:
    """The value of the hole's first index where its number is `number`."""
    for index in hole.indices[1:]:
        number //= sizes[index.name]
    return number
