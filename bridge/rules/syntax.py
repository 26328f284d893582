"""What a rule's text is made of, as values that nothing changes; each `str()` is its spelling.

Positions (`at`, a column in the text) are for error messages only and take no part in equality.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

_RESERVED = frozenset("{}*+[];|\\")


class _Written:
    """A part of a rule: equal to one of the same class with the same fields but `at`."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Written) and self._compared() == other._compared()

    def __hash__(self) -> int:
        return hash(self._compared())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def _compared(self) -> tuple[object, ...]:
        return type(self).__name__, *[getattr(self, name) for name in self.__slots__ if name != "at"]


class Selection(_Written):
    """Python's selection of indices: `3:`, `1::2`, `-1` or `0,3,7`."""

    __slots__ = ("picked", "start", "step", "stop")

    def __init__(
        self, start: int | None = None, stop: int | None = None, step: int | None = None, picked: tuple[int, ...] = ()
    ) -> None:
        self.start, self.stop, self.step, self.picked = start, stop, step, picked

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
        if (self.step or 1) < 0 and self.start is None:
            return False  # it starts at the last one
        return (self.start or 0) >= 0 and (self.stop is None or self.stop >= 0)

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


class Index(_Written):
    """`l` or `l[3:]`: a variable over indices, in a name or as an axis."""

    __slots__ = ("at", "name", "selection")

    def __init__(self, name: str, selection: Selection | None = None, at: int = 0) -> None:
        self.name, self.selection, self.at = name, selection, at

    @property
    def single(self) -> bool:
        """Whether the selection picks one index, `l[5]`: a number, and no axis, as `x[5]` is in Python."""
        return self.selection is not None and len(self.selection.picked) == 1

    def __str__(self) -> str:
        return self.name + ("" if self.selection is None else str(self.selection))


class Hole(_Written):
    """`{l}` or `{(g i[:5])}`: one number in a name, of one or more indices (row-major)."""

    __slots__ = ("indices",)

    def __init__(self, indices: tuple[Index, ...]) -> None:
        self.indices = indices

    def __str__(self) -> str:
        inner = " ".join(map(str, self.indices))
        return "{" + (inner if len(self.indices) == 1 else f"({inner})") + "}"


class Choice(_Written):
    """`{q|k|v}`: one of several texts, in a name."""

    __slots__ = ("at", "labels")

    def __init__(self, labels: tuple[str, ...], at: int = 0) -> None:
        self.labels, self.at = labels, at

    @property
    def dotted(self) -> bool:
        """Whether a label holds a dot, and so is more than a part of one segment."""
        return any("." in label for label in self.labels)

    @property
    def ways(self) -> int:
        """How many labels can fit one text at most: those that begin as others do."""
        begun: list[str] = []
        most = 1
        for label in sorted(self.labels):
            while begun and not label.startswith(begun[-1]):
                begun.pop()
            begun.append(label)
            most = max(most, len(begun))
        return most

    def __str__(self) -> str:
        return "{" + "|".join(map(escaped, self.labels)) + "}"


class Wild(_Written):
    """`*`, any text within a segment, or `**`, any number of segments."""

    __slots__ = ("at", "deep")

    def __init__(self, deep: bool = False, at: int = 0) -> None:
        self.deep, self.at = deep, at

    def __str__(self) -> str:
        return "**" if self.deep else "*"


NamePiece = str | Hole | Choice | Wild
Segment = tuple[NamePiece, ...]


class Name(_Written):
    """A dotted name with variables: segments of texts, holes, choices and wildcards."""

    __slots__ = ("segments",)

    def __init__(self, segments: tuple[Segment, ...]) -> None:
        self.segments = segments

    def pieces(self) -> Iterator[NamePiece]:
        """Every piece, from left to right."""
        for segment in self.segments:
            yield from segment

    def indices(self) -> Iterator[Index]:
        """Every index variable, from left to right."""
        for piece in self.pieces():
            if isinstance(piece, Hole):
                yield from piece.indices

    @property
    def ways(self) -> int:
        """In how many ways a text could be tried as this name at most; of segments by themselves the largest counts."""
        most = dotted = 1
        for segment in self.segments:
            own = 1
            for piece, after in pairwise((*segment, "")):
                if isinstance(piece, Choice):
                    own, dotted = own * piece.ways, dotted * (piece.ways if piece.dotted else 1)
                elif isinstance(piece, Hole):  # where digits follow a number, it may end before any of them
                    texts = after.labels if isinstance(after, Choice) else (after,)
                    own *= 18 if any(isinstance(text, str) and text[:1].isdigit() for text in texts) else 1
            most = max(most, own)
        return most * dotted

    def __str__(self) -> str:
        text = ".".join("".join(escaped(p) if isinstance(p, str) else str(p) for p in s) for s in self.segments)
        # The empty name has a spelling of its own; what looks like it, or like a drop, does not mean it.
        return "''" if not text else "\\" + text if text.startswith("''") or text == "_" else text


NO_NAME = Name(((),))
"""The empty name, `''`."""


class JoinedParts(_Written):
    """`(q|k|v)`: an axis that is these parts, one after the other."""

    __slots__ = ("at", "labels")

    def __init__(self, labels: tuple[str, ...], at: int = 0) -> None:
        self.labels, self.at = labels, at

    def __str__(self) -> str:
        return "(" + "|".join(self.labels) + ")"


class PartExtent(_Written):
    """`_`: as wide as the part that the other side chooses."""

    __slots__ = ("at",)

    def __init__(self, at: int = 0) -> None:
        self.at = at

    def __str__(self) -> str:
        return "_"


class UnitAxis(_Written):
    """`1`: an axis of one."""

    __slots__ = ()

    def __str__(self) -> str:
        return "1"


class Rest(_Written):
    """`...`: all other axes."""

    __slots__ = ("at",)

    def __init__(self, at: int = 0) -> None:
        self.at = at

    def __str__(self) -> str:
        return "..."


Factor = Index | JoinedParts | PartExtent | UnitAxis


class Axis(_Written):
    """One axis of an array, the row-major product of its factors: `m`, `(h d)`, `(q|k|v)`, `1`."""

    __slots__ = ("factors",)

    def __init__(self, factors: tuple[Factor, ...]) -> None:
        self.factors = factors

    def __str__(self) -> str:
        inner = " ".join(map(str, self.factors))
        return inner if len(self.factors) == 1 else f"({inner})"


Axes = tuple[Axis | Rest, ...]


class Side(_Written):
    """A name and, where they are given, the axes of its array."""

    __slots__ = ("at", "axes", "name")

    def __init__(self, name: Name, axes: Axes | None = None, at: int = 0) -> None:
        self.name, self.axes, self.at = name, axes, at

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


def joined(pieces: Sequence[NamePiece]) -> Segment:
    """Pieces as a segment, neighbouring texts as one, so that one spelling has one form."""
    out: list[NamePiece] = []
    for piece in pieces:
        if isinstance(piece, str) and out and isinstance(out[-1], str):
            out[-1] += piece
        elif piece != "":
            out.append(piece)
    return tuple(out)


def literal(name: str) -> Name:
    """The name without variables that spells `name`."""
    return Name(tuple((segment,) if segment else () for segment in name.split(".")))
