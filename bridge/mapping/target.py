"""A rule's leaf name, filled in: which name a key is sent to, with its indices kept apart as numbers."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from bridge._text import plain, template
from bridge._values import NamedTuple
from bridge.mapping.pattern import Codec
from bridge.mapping.places import Row
from bridge.rules.check import all_indices
from bridge.rules.rule import Rule
from bridge.rules.syntax import NO_NAME, Choice, Hole, Index, Name, Piece, Segment, Wild, joined


class Number(NamedTuple):
    """One index of a target: a constant, a column of a key's row, or what a codec makes of several columns.

    A column of -1 is an index that the key lacks: the only one of its selection.
    """

    constant: int | None = None
    columns: tuple[int, ...] = ()
    codec: Codec | None = None

    def value(self, row: Row) -> int | None:
        """The number; `None` where an index lies outside the leaf's selection."""
        if self.codec is not None:
            return self.codec.encode([row[column] if column >= 0 else 0 for column in self.columns])
        return row[self.columns[0]] if self.columns else self.constant


class Carried(NamedTuple):
    """What the name of one key holds besides its indices.

    `wilds` are the texts of its wildcards, with `{}` for the indices that carry over, each with whether there was any
    segment; `labels` are the leaf's own for each of its choices.
    """

    wilds: Sequence[tuple[str, bool]]
    labels: Sequence[str]


class Filled(NamedTuple):
    """A leaf's name with `{}` for each index, the same as syntax, and what the indices are."""

    text: str
    name: Name
    numbers: tuple[Number, ...]


class Target:
    """How one rule names its leaf. Made once for each rule and key side; `variables` are the first columns of a row."""

    def __init__(self, rule: Rule, side: int, variables: Sequence[str], counts: Mapping[str, int]) -> None:
        name = rule.leaf.name if rule.leaf is not None else NO_NAME
        self.segments = name.segments
        self.width = len(variables)
        taken = {i.name for s in (*rule.keys, *([rule.leaf] if rule.leaf else [])) for i in all_indices(s)}
        self.fresh = tuple(n for n in (*"ijkn", *(f"i{d}" for d in range(64))) if n not in taken)
        self.numbers = {hole: _number(hole, variables, counts) for hole in name.pieces() if isinstance(hole, Hole)}
        places = {(s, p): piece for s, segment in enumerate(self.segments) for p, piece in enumerate(segment)}
        # Which wildcard of the key a wildcard of the leaf repeats: the first `*` the first `*`, and so for `**`.
        key = [p for p in rule.keys[side].name.pieces() if isinstance(p, Wild)]
        order = {deep: [n for n, w in enumerate(key) if w.deep is deep] for deep in (False, True)}
        self.wilds = {at: order[p.deep].pop(0) for at, p in places.items() if isinstance(p, Wild)}
        self.choices = {at: n for n, at in enumerate(at for at, p in places.items() if isinstance(p, Choice))}
        # An index carries over as a number where it is a whole segment of the leaf's name, else as text.
        whole = {number for (s, _), number in self.wilds.items() if len(self.segments[s]) == 1}
        self.soft = tuple(rule.leaf is None or n in whole for n in range(len(key)))
        within = [p for (s, _), p in places.items() if isinstance(p, Hole) and len(self.segments[s]) > 1]
        self.embedded = tuple(sorted({c for hole in within for c in self.numbers[hole].columns if c >= 0}))
        # Numbers that a leaf-side selection may refuse.
        self.limited = tuple(number for number in self.numbers.values() if number.codec is not None)

    def accepts(self, row: Row) -> bool:
        """Whether every index lies inside the leaf's selections."""
        return all(number.value(row) is not None for number in self.limited)

    def fill(self, carried: Carried, row: Row, open_: Collection[int | None] = ()) -> Filled:
        """The name that a key is sent to. Choices in `open_` stay choices in the syntax."""
        texts: list[str] = []
        segments: list[Segment] = []
        numbers: list[Number] = []
        fresh = iter(enumerate(self.fresh, self.width))
        for place, segment in enumerate(self.segments):
            first = segment[0] if len(segment) == 1 else None
            if isinstance(first, Hole):
                texts.append("{}")
                segments.append(segment)
                numbers.append(self.numbers[first])
            elif isinstance(first, Wild):
                text, present = carried.wilds[self.wilds[place, 0]]
                parts = text.split(".") if present or not first.deep else []
                texts += parts
                for part in parts:
                    if part == "{}":
                        column, name = next(fresh)
                        numbers.append(Number(columns=(column,)))
                        segments.append((Hole((Index(name),)),))
                    else:
                        segments.append((plain(part),) if part else ())
            else:
                self.mixed(place, carried, row, open_, texts, segments, numbers)
        return Filled(".".join(texts), Name(tuple(segments)) if segments else NO_NAME, tuple(numbers))

    def mixed(
        self,
        place: int,
        carried: Carried,
        row: Row,
        open_: Collection[int | None],
        texts: list[str],
        segments: list[Segment],
        numbers: list[Number],
    ) -> None:
        """Fill a segment of several pieces, or of plain text. What comes out as a number is a constant index."""
        pieces = [self.spelled((place, p), piece, carried, row) for p, piece in enumerate(self.segments[place])]
        whole = "".join(pieces)
        text, found = template(whole)
        texts.append(text)
        numbers += [Number(constant=value) for value in found]
        shown = [
            piece if isinstance(piece, Choice) and self.choices[place, p] in open_ else pieces[p]
            for p, piece in enumerate(self.segments[place])
        ]
        if any(isinstance(piece, Choice) for piece in shown):
            segments.append(joined(shown))
        else:
            segments += [(part,) if part else () for part in whole.split(".")]

    def spelled(self, at: tuple[int, int], piece: Piece, carried: Carried, row: Row) -> str:
        """The text of a piece that is only part of its segment, or carries no index."""
        if isinstance(piece, str):
            return piece
        if isinstance(piece, Wild):
            return carried.wilds[self.wilds[at]][0]
        if isinstance(piece, Choice):
            return carried.labels[self.choices[at]]
        return str(self.numbers[piece].value(row))


def _number(hole: Hole, variables: Sequence[str], counts: Mapping[str, int]) -> Number:
    """A hole of the leaf's name as a number."""
    codec = Codec.of(hole, counts)
    columns = tuple(variables.index(index.name) if index.name in variables else -1 for index in hole.indices)
    return Number(columns=columns) if codec.plain else Number(columns=columns, codec=codec)


def concrete(
    name: Name, carried: Carried, labels: Sequence[str | None], embedded: Mapping[str, str], fresh: Sequence[str]
) -> Name:
    """A key's name with wildcards and settled choices written out, so that it matches just the keys of one way.

    `labels` has `None` where the choice stays open; `embedded` the numbers of holes that the target spells as text, by
    their first index; `fresh` the names to give to carried indices.
    """
    segments: list[Segment] = []
    taken, chosen, soft = iter(carried.wilds), iter(labels), iter(fresh)
    for segment in name.segments:
        pieces: list[Piece] = []
        for piece in segment:
            if isinstance(piece, Wild):
                text, present = next(taken)
                if piece.deep:
                    segments += [_soft(part, soft) for part in (text.split(".") if present else ())]
                else:
                    pieces += _soft(text, soft)
            elif isinstance(piece, Choice):
                label = next(chosen)
                pieces.append(piece if label is None else label)
            elif isinstance(piece, Hole) and piece.indices[0].name in embedded:
                pieces.append(embedded[piece.indices[0].name])
            else:
                pieces.append(piece)
        if pieces or not (len(segment) == 1 and isinstance(segment[0], Wild) and segment[0].deep):
            segments.append(joined(pieces))
    return Name(tuple(segments)) if segments else NO_NAME


def _soft(part: str, fresh: Iterator[str]) -> Segment:
    if part == "{}":
        return (Hole((Index(next(fresh)),)),)
    return (plain(part),) if part else ()
