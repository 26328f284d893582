"""Which key would fill a hole: the indices of the keys around it, continued."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bridge._text import filled, plain_pieces, template
from bridge.mapping.indexmap import Shape

_SAMPLES = 256  # enough to see how keys run; more would only cost time


class IndexFit:
    """How the indices of keys follow from places: each is constant, or one number of the place, scaled and shifted."""

    def __init__(self, samples: Mapping[Shape, str]) -> None:
        step = max(1, len(samples) // _SAMPLES)
        items = [(place, *template(key)) for place, key in [*samples.items()][::step]]
        texts = {text for _, text, _ in items}
        self.text = texts.pop() if len(texts) == 1 else None
        columns = zip(*(indices for _, _, indices in items), strict=True) if self.text is not None else ()
        self.lines = [_line([place for place, _, _ in items], column) for column in columns]
        if len(items) == len(self.lines) == 1 and self.lines[0] is not None:
            (place, _, _), (_, _, value) = items[0], self.lines[0]
            if value in place:  # one sample tells no line, but an index is more likely than a constant
                self.lines = [(place.index(value), 1, 0)]

    @property
    def axes(self) -> set[int]:
        """The numbers of a place that the key follows."""
        return {line[0] for line in self.lines if line is not None and line[1]}

    def key(self, place: Shape) -> str | None:
        """The key at `place`; `None` where the samples do not tell."""
        if self.text is None:
            return None
        found: list[int] = []
        for line in self.lines:
            if line is None:
                return None
            axis, step, first = line
            found.append(first + step * place[axis] if step else first)
        return filled(self.text, found) if all(n >= 0 for n in found) else None

    def keys(self, places: Sequence[range]) -> str | None:
        """The keys at a box of places, as one text: `layers.{7..9}.w`; `None` where the samples do not tell."""
        first, last = (self.key(tuple(r[n] for r in places)) for n in (0, -1))
        if first is None or last is None or first == last:
            return first if last is not None else None
        starts, stops = template(first)[1], template(last)[1]
        pairs = zip(starts, stops, strict=True)
        shown = [str(a) if a == b else f"{{{min(a, b)}..{max(a, b)}}}" for a, b in pairs]
        pieces = plain_pieces(self.text or "")
        return "".join(piece + number for piece, number in zip(pieces, [*shown, ""], strict=True))


def _line(places: list[Shape], values: tuple[int, ...]) -> tuple[int, int, int] | None:
    """The axis, step and first value by which one coordinate explains all values."""
    if len(set(values)) == 1:
        return 0, 0, values[0]
    for axis in range(len(places[0])):
        seen = {place[axis]: value for place, value in zip(places, values, strict=True)}
        if len(seen) < 2 or any(seen[place[axis]] != value for place, value in zip(places, values, strict=True)):
            continue
        (x, y), (x2, y2) = list(seen.items())[:2]
        step, rest = divmod(y2 - y, x2 - x)
        if not rest and step and all(v == y + step * (c - x) for c, v in seen.items()):
            return axis, step, y - step * x
    return None
