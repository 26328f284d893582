"""How names, shapes and byte counts are written for people. Pure text, no state."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def printable(text: str) -> str:
    """`text` with control and other unprintable characters as escapes: a key may hold terminal commands."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


_MOST = 2000  # characters of one line


def safe(text: str) -> str:
    """A text of several lines as it may be printed, whoever's words are in it: escaped, and no line without end."""
    lines = [printable(line) for line in text.split("\n")]
    return "\n".join([line if len(line) <= _MOST else f"{line[: _MOST - 500]}…{line[-400:]}" for line in lines])


def sentences(statement: str, advice: str | None) -> str:
    """A statement and one advice, as two sentences."""
    if not advice:
        return statement
    return f"{statement}. {advice}{'' if advice[-1] in '.?!…' else '.'}"


def quote(name: str) -> str:
    """`name` between single quotes, safe to print; cut in the middle where it is absurdly long."""
    shown = printable(name)
    if len(shown) > 300:
        shown = f"{shown[:180]}…{shown[-100:]}"
    return f"'{shown}'"


def human_nbytes(nbytes: int) -> str:
    """`nbytes` in decimal units, as disks and the Hub count: `90.9 MB`."""
    if nbytes < 1000:
        return f"{nbytes} B"
    value = float(nbytes)
    for unit in ("kB", "MB", "GB", "TB"):
        value /= 1000
        if value < 999.95:
            return f"{value:.1f} {unit}"
    return f"{value / 1000:.1f} PB"


def plural(count: int, noun: str) -> str:
    """`1 key`, `2 keys`, `1 leaf`, `2 leaves`, `1 axis`, `2 axes`."""
    if count == 1:
        return f"1 {noun}"
    return f"{count:,} {_PLURALS.get(noun, f'{noun}s')}"


_PLURALS = {"leaf": "leaves", "axis": "axes", "matrix": "matrices"}


def ranges(values: Iterable[int]) -> str:
    """Sorted runs of `values`: `0..3,7`."""
    runs: list[list[int]] = []
    for value in sorted(set(values)):
        if runs and value == runs[-1][1] + 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    return ",".join(str(a) if a == b else f"{a}..{b}" for a, b in runs)


_INDEX = re.compile(r"(?<![^.])(0|[1-9][0-9]{0,17})(?![^.])")


def is_index(segment: str) -> bool:
    """Whether a segment of a name is an index: `0` or up to 18 digits without a leading zero."""
    return _INDEX.fullmatch(segment) is not None


_BRACE = "{\ue000"  # a brace that a name itself holds, so that `{}` in a template is always an index


def template(name: str) -> tuple[str, tuple[int, ...]]:
    """A name with every index segment as `{}`, and the indices: `('layers.{}.weight', (3,))`."""
    if "{" in name:
        name = name.replace("{", _BRACE)
    pieces = _INDEX.split(name)
    return ("{}".join(pieces[::2]), tuple(map(int, pieces[1::2]))) if len(pieces) > 1 else (name, ())


def plain(text: str) -> str:
    """A template, or a part of one, as the text that it stands for."""
    return text.replace(_BRACE, "{") if "{" in text else text


def filled(text: str, indices: Sequence[int]) -> str:
    """The name that a template gives with these indices."""
    if not indices:
        return plain(text)
    pieces = plain_pieces(text)
    return "".join([a + b for a, b in zip(pieces, [*map(str, indices), ""], strict=True)])


def plain_pieces(text: str) -> list[str]:
    """What stands between the indices of a template."""
    return [plain(piece) for piece in text.split("{}")]


def fold(names: Iterable[str]) -> list[tuple[str, tuple[str, ...]]]:
    """Names folded by index: `[('layers.{0..31}.weight', (32 names)), …]` in order of first appearance.

    Only full products fold into one line, so the text never claims a name that is not there.
    """
    groups: dict[str, dict[tuple[int, ...], str]] = {}
    for name in names:
        text, indices = template(name)
        groups.setdefault(text, {})[indices] = name
    folded: list[tuple[str, tuple[str, ...]]] = []
    for text, members in groups.items():
        folded += [(fill(text, part), tuple(members[i] for i in part)) for part in _products(list(members))]
    return folded


def fill(text: str, indices: Sequence[tuple[int, ...]]) -> str:
    """A template with the ranges of `indices`, a full product, in its holes."""
    pieces = plain_pieces(text)
    if len(pieces) == 1:
        return pieces[0]
    columns = list(zip(*indices, strict=True))
    shown = [str(c[0]) if len(set(c)) == 1 else "{" + ranges(c) + "}" for c in columns]
    return "".join(a + b for a, b in zip(pieces, [*shown, ""], strict=True))


def _products(indices: list[tuple[int, ...]]) -> list[list[tuple[int, ...]]]:
    """`indices` split into full products, along the first place where one fails to be."""
    count = 1
    for column in zip(*indices, strict=True):
        count *= len(set(column))
    if count == len(indices):
        return [sorted(indices)]
    rows: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    for index in sorted(indices):
        rows.setdefault(index[1:], []).append(index)
    # Tails that hang under the same set of first indices stay together.
    joined: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    for row in rows.values():
        joined.setdefault(tuple(i[0] for i in row), []).extend(row)
    parts = list(joined.values())
    if len(parts) == 1:
        return [[i] for i in parts[0]]
    return [product for part in parts for product in _products(part)]
