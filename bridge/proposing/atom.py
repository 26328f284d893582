"""`Atom`: arrays of one shape whose names differ only in numbers, as a full grid of these numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from math import prod
from typing import NamedTuple

import numpy as np

from bridge.mapping.arrays import ArrayTable, Numbers, Shape
from bridge.mapping.pattern import MARK, Column, Mask, Matrix


class Info(NamedTuple):
    """What is known of an array beside its name.

    Of a leaf that a layout shapes: `ports` are PyTorch's names for the last `own` segments of the leaf's name,
    `port_shape` the shape of one layer's tensor there, `depth` how many leading axes are a stack's. `layer` is the type
    of `eqx.nn` that owns the leaf, where it is known.
    """

    shape: Shape
    ports: tuple[str, ...] = ()
    own: int = 0
    port_shape: Shape | None = None
    depth: int | None = None
    layer: str = ""
    fused: str = ""
    """The name by which a layout takes this array and others as one; it stands for the last `fused_own` segments."""
    fused_own: int = 0
    fused_depth: int = 0
    number: str = "float"
    """What kind of number it holds: no cast leads from one kind to another."""


class Turn(NamedTuple):
    """The number in segment `place` counts groups of `period` layers, of which an atom has those in `turns`.

    There are `groups` of them; the last may be shorter. With several turns, the number in the segment behind is the
    turn: there is one number in the key's own name.
    """

    place: int
    period: int
    turns: tuple[int, ...]
    groups: int

    @property
    def width(self) -> int:
        """How many numbers stand for the one of the name."""
        return 1 if len(self.turns) == 1 else 2


def number_of(dtype: np.dtype) -> str:
    """The kind of number of a dtype: `float`, `int`, `bool`, or its own name."""
    return {"b": "bool", "i": "int", "u": "int", "c": "complex"}.get(dtype.kind, "float")


class Atom:
    """Arrays `ids` of a table. Each segment of `segments` may hold `MARK` once, for a number; row `i` of `numbers` are
    those of array `ids[i]`. Every combination of the numbers of each column is there.
    """

    joined = False  # whether it stands for several atoms: `Joined`
    axis = -1  # on which these are joined

    def __init__(
        self,
        segments: tuple[str, ...],
        numbers: Matrix,
        ids: Numbers,
        info: Info,
        turn: Turn | None = None,
        why: str = "",
    ) -> None:
        self.segments, self.numbers, self.ids, self.info = segments, numbers, ids, info
        self.turn, self.why = turn, why

    @property
    def shape(self) -> Shape:
        """Of one array."""
        return self.info.shape

    @cached_property
    def text(self) -> str:
        """The name, with `{}` for each number."""
        return ".".join(self.segments).replace(MARK, "{}")

    @cached_property
    def columns(self) -> list[Column]:
        """The numbers in each place, sorted, each once."""
        return [np.unique(column) for column in self.numbers.T]

    @cached_property
    def extents(self) -> Shape:
        """How many numbers there are in each place."""
        return tuple(len(column) for column in self.columns)

    @cached_property
    def elements(self) -> int:
        """Of all arrays together."""
        return len(self.ids) * prod(self.shape)

    @cached_property
    def nodes(self) -> list[str]:
        """For each number the name up to it."""
        return [".".join(self.segments[: n + 1]) for n, segment in enumerate(self.segments) if MARK in segment]

    @property
    def shown(self) -> str:
        """The name with its numbers, for people: `h.{0..11}.ln_1.weight`."""
        from bridge._text import ranges

        if self.turn is not None:
            return self.ungrouped().shown
        pieces = ".".join(self.segments).split(MARK)
        texts = [ranges(c.tolist()) for c in self.columns]
        texts = [t if t.isdecimal() else f"{{{t}}}" for t in texts]
        return "".join(a + b for a, b in zip(pieces, [*texts, ""], strict=True))

    def ungrouped(self) -> Atom:
        """The atom with the numbers that stand in the names."""
        if self.turn is None:
            return self
        place, period, turns, _ = self.turn
        at, width = sum(MARK in segment for segment in self.segments[:place]), self.turn.width
        layers = self.numbers[:, at] * period + (turns[0] if width == 1 else self.numbers[:, at + 1])
        numbers = np.column_stack([self.numbers[:, :at], layers, self.numbers[:, at + width :]])
        segments = (*self.segments[: place + 1], *self.segments[place + width :])
        return Atom(segments, numbers, self.ids, self.info, why=self.why)

    def names(self, table: ArrayTable) -> list[str]:
        """The full names of the arrays."""
        numbers: list[int] = self.ids.tolist()
        return [table.names[n] for n in numbers]

    def at(self, mask: Mask, why: str = "") -> Atom:
        """Some rows; a number that is the same in all of them becomes text."""
        return Atom(self.segments, self.numbers[mask], self.ids[mask], self.info, why=why or self.why).settled()

    def settled(self) -> Atom:
        """The atom without columns of one number: it stands in the name."""
        single = [len(column) == 1 for column in self.columns]
        if not any(single):
            return self
        place, segments = 0, list(self.segments)
        for n, segment in enumerate(segments):
            if MARK in segment:
                if single[place]:
                    segments[n] = segment.replace(MARK, str(int(self.columns[place][0])))
                place += 1
        kept = np.flatnonzero(~np.array(single))
        return Atom(tuple(segments), self.numbers[:, kept], self.ids, self.info, why=self.why)

    def cut(self, place: int, classes: Iterable[Sequence[int]]) -> Iterator[Atom]:
        """The atom by classes of the numbers in one place; numbers that are in no class are one more."""
        if self.turn is not None:
            yield self
            return
        column, rest = self.numbers[:, place], np.ones(len(self.ids), bool)
        for values in classes:
            mask = np.isin(column, values)
            if mask.any():
                rest &= ~mask
                yield self.at(mask)
        if rest.any():
            yield self.at(rest)

    def __repr__(self) -> str:
        return f"<{self.shown} {list(self.shape)}>"


def gridded(atom: Atom) -> Iterator[Atom]:
    """The atom as parts that are full grids of their numbers each."""
    atom = atom.settled()
    if prod(atom.extents) == len(atom.ids):
        yield atom
        return
    rows: dict[int, list[int]] = {}
    for row, value in enumerate(atom.numbers[:, 0].tolist()):
        rows.setdefault(value, []).append(row)
    alike: dict[bytes, list[int]] = {}
    for members in rows.values():
        rest = atom.numbers[members, 1:]
        alike.setdefault(np.sort(rest.copy().view([("", rest.dtype)] * rest.shape[1]), axis=0).tobytes(), []).extend(
            members
        )
    if len(alike) == 1:  # the grid is not full below: cut there
        for value in np.unique(atom.numbers[:, 1]).tolist():
            yield from gridded(atom.at(atom.numbers[:, 1] == value))
        return
    for members in alike.values():
        mask = np.zeros(len(atom.ids), bool)
        mask[members] = True
        yield from gridded(atom.at(mask))
