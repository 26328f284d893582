"""Which key would fill a hole: the indices of the keys around it, continued."""

from __future__ import annotations

from collections.abc import Mapping

from bridge._text import template
from bridge.mapping.indexmap import Shape


def fit(samples: Mapping[Shape, str], wanted: Shape) -> str | None:
    """The key at `wanted`, where each index of the keys of `samples` is one of the place's numbers, scaled and shifted.

    `None` where the samples do not tell.
    """
    if not samples or len(wanted) == 0:
        return None
    items = [(place, *template(key)) for place, key in samples.items()]
    text, length = items[0][1], len(items[0][2])
    if any(t != text for _, t, _ in items):
        return None
    found: list[int] = []
    for position in range(length):
        column = [(place, indices[position]) for place, _, indices in items]
        value = _constant(column) if len({v for _, v in column}) == 1 else _linear(column, wanted)
        if value is None or value < 0:
            return None
        found.append(value)
    pieces = text.split("{}")
    return "".join(a + b for a, b in zip(pieces, [*map(str, found), ""], strict=True))


def _constant(column: list[tuple[Shape, int]]) -> int:
    return column[0][1]


def _linear(column: list[tuple[Shape, int]], wanted: Shape) -> int | None:
    """The value at `wanted` of a column that one coordinate explains."""
    for axis in range(len(wanted)):
        seen = {place[axis]: value for place, value in column}
        if len(seen) < 2 or any(seen[place[axis]] != value for place, value in column):
            continue
        (x, y), (x2, y2) = list(seen.items())[:2]
        step, rest = divmod(y2 - y, x2 - x)
        if not rest and all(v == y + step * (c - x) for c, v in seen.items()):
            return y + step * (wanted[axis] - x)
    return None
