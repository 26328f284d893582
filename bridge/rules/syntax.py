"""What a rule's text is made of, as frozen values; each `str()` is its spelling.

Positions (`at`, a column in the text) are for error messages only and take no part in equality.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

_RESERVED = frozenset("{}*+[];|\\")


def _equal(self: Any, other: object) -> bool:
    """Equality of parts of a rule: of one class, in all fields but `at`."""
    return type(self) is type(other) and _compared(self) == _compared(other)


def _hash(self: Any) -> int:
    return hash((type(self).__name__, _compared(self)))


def _compared(part: Any) -> tuple[Any, ...]:
    fields: tuple[Any, ...] = (*part,)
    return fields[:-1] if part._fields[-1:] == ("at",) else fields


class Selection(NamedTuple):
    """Python's selection of indices: `3:`, `1::2`, `-1` or `0,3,7`."""

    start: int | None = None
    stop: int | None = None
    step: int | None = None
    picked: tuple[int, ...] = ()

    __eq__ = _equal
    __hash__ = _hash

    def positions(self, count: int) -> range | tuple[int, ...]:
        """The selected of `count` indices, in order; negative bounds count from the end."""
        if self.picked:
            found = tuple(i + count if i < 0 else i for i in self.picked)
            return tuple(i for i in found if i >= 0)
        return range(count)[slice(self.start, self.stop, self.step)]

    @property
    def bounded(self) -> bool:
        """Whether the selection means the same for every count large enough."""
        if self.picked:
            return all(i >= 0 for i in self.picked)
        return (self.start or 0) >= 0 and (self.stop is None or self.stop >= 0) and (self.step or 1) > 0

    def resolved(self, count: int) -> Selection:
        """The same selection of `count` indices, with no bound that counts from the end."""
        if self.bounded:
            return self
        found = self.positions(count)
        if not isinstance(found, range):
            return Selection(picked=found)
        return Selection(found.start, found.stop if found.stop >= 0 else None, None if found.step == 1 else found.step)

    def __str__(self) -> str:
        if self.picked:
            return "[" + ",".join(map(str, self.picked)) + "]"
        shown = ["" if part is None else str(part) for part in (self.start, self.stop, self.step)]
        return "[" + (":".join(shown) if shown[2] else ":".join(shown[:2])) + "]"


class Index(NamedTuple):
    """`l` or `l[3:]`: a variable over indices, in a name or as an axis."""

    name: str
    selection: Selection | None = None
    at: int = 0

    __eq__ = _equal
    __hash__ = _hash

    @property
    def single(self) -> bool:
        """Whether the selection picks one index, `l[5]`: a number, and no axis, as `x[5]` is in Python."""
        return self.selection is not None and len(self.selection.picked) == 1

    def __str__(self) -> str:
        return self.name + ("" if self.selection is None else str(self.selection))


class Hole(NamedTuple):
    """`{l}` or `{(g i[:5])}`: one number in a name, of one or more indices (row-major)."""

    indices: tuple[Index, ...]

    __eq__ = _equal
    __hash__ = _hash

    def __str__(self) -> str:
        inner = " ".join(map(str, self.indices))
        return "{" + (inner if len(self.indices) == 1 else f"({inner})") + "}"


class Choice(NamedTuple):
    """`{q|k|v}`: one of several texts, in a name."""

    labels: tuple[str, ...]
    at: int = 0

    __eq__ = _equal
    __hash__ = _hash

    def __str__(self) -> str:
        return "{" + "|".join(map(escaped, self.labels)) + "}"


class Wild(NamedTuple):
    """`*`, any text within a segment, or `**`, any number of segments."""

    deep: bool = False
    at: int = 0

    __eq__ = _equal
    __hash__ = _hash

    def __str__(self) -> str:
        return "**" if self.deep else "*"


Piece = str | Hole | Choice | Wild
Segment = tuple[Piece, ...]


class Name(NamedTuple):
    """A dotted name with variables: segments of texts, holes, choices and wildcards."""

    segments: tuple[Segment, ...]

    __eq__ = _equal
    __hash__ = _hash

    def pieces(self) -> Iterator[Piece]:
        """Every piece, from left to right."""
        for segment in self.segments:
            yield from segment

    def indices(self) -> Iterator[Index]:
        """Every index variable, from left to right."""
        for piece in self.pieces():
            if isinstance(piece, Hole):
                yield from piece.indices

    def __str__(self) -> str:
        text = ".".join("".join(escaped(p) if isinstance(p, str) else str(p) for p in s) for s in self.segments)
        # The empty name has a spelling of its own; what looks like it, or like a drop, does not mean it.
        return "''" if not text else "\\" + text if text.startswith("''") or text == "_" else text


NO_NAME = Name(((),))
"""The empty name, `''`."""


class Parts(NamedTuple):
    """`(q|k|v)`: an axis that is these parts, one after the other."""

    labels: tuple[str, ...]
    at: int = 0

    __eq__ = _equal
    __hash__ = _hash

    def __str__(self) -> str:
        return "(" + "|".join(self.labels) + ")"


class Part(NamedTuple):
    """`_`: as wide as the part that the other side chooses."""

    at: int = 0

    __eq__ = _equal
    __hash__ = _hash

    def __str__(self) -> str:
        return "_"


class Unit(NamedTuple):
    """`1`: an axis of one."""

    __eq__ = _equal
    __hash__ = _hash

    def __str__(self) -> str:
        return "1"


class Rest(NamedTuple):
    """`...`: all other axes."""

    at: int = 0

    __eq__ = _equal
    __hash__ = _hash

    def __str__(self) -> str:
        return "..."


Factor = Index | Parts | Part | Unit


class Axis(NamedTuple):
    """One axis of an array, the row-major product of its factors: `m`, `(h d)`, `(q|k|v)`, `1`."""

    factors: tuple[Factor, ...]

    __eq__ = _equal
    __hash__ = _hash

    def __str__(self) -> str:
        inner = " ".join(map(str, self.factors))
        return inner if len(self.factors) == 1 else f"({inner})"


Axes = tuple[Axis | Rest, ...]


class Side(NamedTuple):
    """A name and, where they are given, the axes of its array."""

    name: Name
    axes: Axes | None = None
    at: int = 0

    __eq__ = _equal
    __hash__ = _hash

    def factors(self) -> Iterator[Factor]:
        """Every factor of every axis, from left to right."""
        for axis in self.axes or ():
            if isinstance(axis, Axis):
                yield from axis.factors

    def __str__(self) -> str:
        return str(self.name) + ("" if self.axes is None else " [" + " ".join(map(str, self.axes)) + "]")


def escaped(text: str) -> str:
    r"""`text` as it stands in a name: what the language uses itself gets a backslash, `->` at its dash."""
    if _RESERVED.isdisjoint(text) and "->" not in text and not any(map(str.isspace, text)):
        return text
    shown = "".join("\\" + c if c in _RESERVED or c.isspace() else c for c in text)
    return shown.replace("->", "\\->")


def joined(pieces: Sequence[Piece]) -> Segment:
    """Pieces as a segment, neighbouring texts as one, so that one spelling has one form."""
    out: list[Piece] = []
    for piece in pieces:
        if isinstance(piece, str) and out and isinstance(out[-1], str):
            out[-1] += piece
        elif piece != "":
            out.append(piece)
    return tuple(out)


def literal(name: str) -> Name:
    """The name without variables that spells `name`."""
    return Name(tuple((segment,) if segment else () for segment in name.split(".")))
