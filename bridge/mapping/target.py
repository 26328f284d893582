"""A rule's leaf name, filled in: which name a key is sent to, with its indices kept apart as numbers."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from bridge._text import template
from bridge.mapping.pattern import Codec
from bridge.rules.check import all_indices
from bridge.rules.rule import Rule
from bridge.rules.syntax import Choice, Hole, Index, Name, Piece, Segment, Wild

Texts = Mapping[int, str]
"""What each choice or wildcard (by its place among them in the name) stands for."""


@dataclass(frozen=True, slots=True)
class Number:
    """One index of a target: a constant, a composition of rule indices, or the next one that a wildcard carried."""

    constant: int | None = None
    codec: Codec | None = None
    names: tuple[str, ...] = ()

    def value(self, values: Mapping[str, int], carried: Iterator[int]) -> int | None:
        """The number; `None` where an index lies outside the leaf's selection."""
        if self.codec is not None:
            return self.codec.encode([values[name] for name in self.names])
        return next(carried) if self.constant is None else self.constant


class Target:
    """How one rule names its leaf. Made once for each rule and key side."""

    def __init__(self, rule: Rule, side: int, counts: Mapping[str, int]) -> None:
        self.name = rule.leaf.name if rule.leaf is not None else Name(((),))
        self.counts = counts
        self.whole = {id(s[0]) for s in self.name.segments if len(s) == 1}
        taken = {i.name for s in (*rule.keys, *([rule.leaf] if rule.leaf else [])) for i in all_indices(s)}
        self.fresh = tuple(n for n in (*"ijkn", *(f"i{d}" for d in range(64))) if n not in taken)
        # Which wildcard of the key a wildcard of the leaf repeats: the first `*` the first `*`, and so for `**`.
        key = [p for p in rule.keys[side].name.pieces() if isinstance(p, Wild)]
        order = {deep: [n for n, w in enumerate(key) if w.deep is deep] for deep in (False, True)}
        self.wilds = {id(p): order[p.deep].pop(0) for p in self.name.pieces() if isinstance(p, Wild)}
        # An index carries over as a number where it is a whole segment of the leaf's name, else as text.
        whole = {number for piece, number in self.wilds.items() if piece in self.whole}
        self.soft = tuple(rule.leaf is None or n in whole for n in range(len(key)))
        choices = [p for p in self.name.pieces() if isinstance(p, Choice)]
        self.choices = {id(p): n for n, p in enumerate(choices)}
        self.embedded = frozenset(
            index.name
            for piece in self.name.pieces()
            if isinstance(piece, Hole) and id(piece) not in self.whole
            for index in piece.indices
        )

    def fill(
        self, wilds: Sequence[tuple[str, bool]], labels: Sequence[str], values: Mapping[str, int], open_: Collection[int] = ()
    ) -> tuple[str, Name, tuple[Number, ...]]:
        """The name with `{}` for each index, the same as syntax, and what the indices are.

        `wilds` are the texts that the key's wildcards took, and whether there was any segment; `labels` are the leaf's own
        for each of its choices; those in `open_` stay choices in the syntax.
        """
        texts: list[str] = []
        segments: list[Segment] = []
        numbers: list[Number] = []
        soft = 0
        for segment in self.name.segments:
            piece = segment[0] if len(segment) == 1 else None
            if isinstance(piece, Hole):
                texts.append("{}")
                segments.append(segment)
                numbers.append(Number(codec=Codec.of(piece, self.counts), names=tuple(i.name for i in piece.indices)))
                continue
            if isinstance(piece, Wild):
                carried, present = wilds[self.wilds[id(piece)]]
                constants: list[int] = []
                parts = carried.split(".") if present or not piece.deep else []
            else:
                plain = "".join(self.spelled(p, wilds, labels, values) for p in segment)
                carried, found = template(plain)
                constants, parts = list(found), carried.split(".")
                if any(isinstance(p, Choice) and self.choices[id(p)] in open_ for p in segment):
                    texts.append(carried)
                    segments.append(joined([p if isinstance(p, Choice) else self.spelled(p, wilds, labels, values) for p in segment]))
                    continue
            for part in parts:
                texts.append(part)
                if part != "{}":
                    segments.append((part,) if part else ())
                elif constants:
                    numbers.append(Number(constant=constants.pop(0)))
                    segments.append((str(numbers[-1].constant),))
                else:
                    numbers.append(Number())
                    segments.append((Hole((Index(self.fresh[soft]),)),))
                    soft += 1
        return ".".join(texts), Name(tuple(segments) or ((),)), tuple(numbers)

    def spelled(
        self, piece: Piece, wilds: Sequence[tuple[str, bool]], labels: Sequence[str], values: Mapping[str, int]
    ) -> str:
        """The text of a piece that is only part of its segment, or carries no index."""
        if isinstance(piece, str):
            return piece
        if isinstance(piece, Wild):
            return wilds[self.wilds[id(piece)]][0]
        if isinstance(piece, Choice):
            return labels[self.choices[id(piece)]]
        number = Codec.of(piece, self.counts).encode([values[index.name] for index in piece.indices])
        return "" if number is None else str(number)


def concrete(
    name: Name, wilds: Sequence[tuple[str, bool]], labels: Sequence[str | None], embedded: Mapping[str, str], fresh: Sequence[str]
) -> Name:
    """A key's name with wildcards and settled choices written out, so that it matches just the keys of one way.

    `wilds` are texts and whether there was any segment; `labels` has `None` where the choice stays open; `embedded` the
    numbers of holes that the target spells as text; `fresh` the names to give to carried indices.
    """
    segments: list[Segment] = []
    taken, chosen, soft = iter(wilds), iter(labels), iter(fresh)
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
    return Name(tuple(segments) or ((),))


def joined(pieces: Sequence[Piece]) -> Segment:
    """A segment with neighbouring texts as one."""
    out: list[Piece] = []
    for piece in pieces:
        if isinstance(piece, str) and out and isinstance(out[-1], str):
            out[-1] += piece
        else:
            out.append(piece)
    return tuple(out)


def _soft(part: str, fresh: Iterator[str]) -> Segment:
    if part == "{}":
        return (Hole((Index(next(fresh)),)),)
    return (part,) if part else ()
