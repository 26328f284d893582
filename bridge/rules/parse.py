"""Text to syntax: one pass from left to right, every error with its place in the text.

rule  =  keys "->" leaves [";" options]         (docs/rules.md has the whole grammar)
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from bridge._errors import RuleError
from bridge.rules.options import Cursor, Option, fail, read_index, read_options
from bridge.rules.syntax import (
    Axes,
    Axis,
    Choice,
    Factor,
    Hole,
    Index,
    JoinedParts,
    Name,
    NamePiece,
    PartExtent,
    Rest,
    Segment,
    Side,
    UnitAxis,
    Wild,
    joined,
)

_KEY_TO_LEAF, _MOST_WAYS, _MOST_TERMS = "Write a rule as 'key -> leaf'", 1000, 100
_PLAIN = re.compile(r"[^\s.*{}\[\]+;\\-]+")  # text at once: a key of a checkpoint may have a million characters


def read_name(cursor: Cursor) -> Name:
    """Segments up to a blank or a character of the language's own."""
    if cursor.take("''"):
        return Name(((),))
    start = cursor.at
    segments: list[Segment] = []
    pieces: list[NamePiece] = []
    while not _ends(cursor):
        if cursor.take(".") or cursor.take("\\."):
            segments.append(joined(pieces))
            pieces = []
        elif cursor.peek("*"):
            pieces.append(_wild(cursor, pieces))
        elif cursor.take("{"):
            pieces.append(_braces(cursor, pieces))
        elif plain := _PLAIN.match(cursor.text, cursor.at):
            pieces.append(plain[0])
            cursor.at = plain.end()
        else:
            pieces.append(_character(cursor))
    name = Name((*segments, joined(pieces)))
    if name.ways > _MOST_WAYS:
        cursor.fail(
            "this name can be read in too many ways: a choice begins as another of its texts does",
            "Write a rule for each of its texts",
            start,
        )
    return name


def _ends(cursor: Cursor) -> bool:
    return cursor.done or cursor.blank() or cursor.text[cursor.at] in "[]+;}" or cursor.peek("->")


def _character(cursor: Cursor) -> str:
    r"""One character of plain text; `\` takes the next one as it is."""
    if cursor.take("\\") and cursor.done:
        cursor.fail("'\\' takes the next character as it is, but the text ends here", "Leave it out", cursor.at - 1)
    cursor.at += 1
    return cursor.text[cursor.at - 1]


def _wild(cursor: Cursor, before: Sequence[NamePiece]) -> Wild:
    """`*`, or `**` where that is the whole segment."""
    start = cursor.at
    while cursor.take("*"):
        pass
    if cursor.at - start == 1:
        return Wild(at=start)
    if cursor.at - start > 2 or before or not (_ends(cursor) or cursor.peek(".")):
        cursor.fail("'**' stands for whole segments", "Write 'a.**.b', and within a segment one '*'", start)
    return Wild(deep=True, at=start)


def _braces(cursor: Cursor, before: Sequence[NamePiece]) -> Hole | Choice:
    """What stands between braces in a name: an index, a composition of indices, or a choice."""
    start = cursor.at
    cursor.blanks()
    if cursor.peek("("):
        hole = Hole(_composed(cursor, start - 1))
    else:
        cursor.at = start
        labels = _labels(cursor, start - 1)
        if len(labels) > 1:
            return _choice(cursor, labels, start - 1)
        cursor.at = start
        cursor.blanks()
        hole = Hole((read_index(cursor, "an index or a choice", "Write one, as in '{l}' or '{q|k|v}'"),))
    cursor.blanks()
    if not cursor.take("}"):
        cursor.fail("expected '}' here", "Close the brace")
    if before and isinstance(before[-1], Hole):
        cursor.fail(
            "two indices are side by side: nothing says where one number ends and the next begins",
            "Write a text between them",
            start - 1,
        )
    return hole


def _composed(cursor: Cursor, start: int) -> tuple[Index, ...]:
    """`(g i[:5])`."""
    cursor.take("(")
    indices: list[Index] = []
    cursor.blanks()
    while not cursor.take(")"):
        indices.append(read_index(cursor, "an index", "Write one, as in '{(g i)}'"))
        cursor.blanks()
    if len(indices) < 2:
        cursor.fail("'{(…)}' composes two or more indices", "Write '{g}' for one", start)
    return tuple(indices)


def _labels(cursor: Cursor, start: int) -> tuple[str, ...]:
    """The texts that `|` divides, with the closing brace."""
    labels = [""]
    while not cursor.take("}"):
        if cursor.done:
            cursor.fail("this brace is never closed", "Close it with '}'", start)
        if cursor.take("|"):
            labels.append("")
        elif len(labels) > 1 and cursor.text[cursor.at] in "*{":
            cursor.fail(
                f"a choice is between plain texts, without '{cursor.text[cursor.at]}'", "Write a rule for each text"
            )
        else:
            labels[-1] += _character(cursor)
    return tuple(labels)


def _choice(cursor: Cursor, labels: tuple[str, ...], start: int) -> Choice:
    if len(set(labels)) < len(labels):
        cursor.fail("this choice names a text twice", "Name each text once", start)
    return Choice(labels, at=start)


_PART = re.compile(r"_(?!\w)")
_UNIT = re.compile(r"1(?!\w)")


def read_axes(cursor: Cursor) -> Axes:
    """Axes up to the closing bracket."""
    axes: list[Axis | Rest] = []
    cursor.blanks()
    while not cursor.take("]"):
        start = cursor.at
        if cursor.take("..."):
            axes.append(Rest(at=start))
        elif cursor.take("("):
            axes.append(_group(cursor, start))
        else:
            axes.append(Axis((_factor(cursor),)))
        cursor.blanks()
    return tuple(axes)


def _group(cursor: Cursor, start: int) -> Axis:
    """`(h d)` as one axis, or `(q|k|v)`, after its opening parenthesis."""
    factors: list[Factor] = []
    while True:
        cursor.blanks()
        if cursor.take(")"):
            break
        inner = cursor.at
        factors.append(_parts(cursor, inner) if cursor.take("(") else _factor(cursor))
        cursor.blanks()
        if cursor.peek("|"):
            cursor.at = start + 1
            return Axis((_parts(cursor, start),))
    if not factors:
        cursor.fail("'()' is empty", "Write '1' for an axis of one element", start)
    return Axis(tuple(factors))


def _parts(cursor: Cursor, start: int) -> JoinedParts:
    """`q|k|v)`."""
    labels: list[str] = []
    while True:
        cursor.blanks()
        label = read_index(cursor, "the name of a part", "Write one, as in '(q|k|v)'")
        if label.selection is not None:
            cursor.fail("a part cannot have a selection", "Leave its selection out", label.at)
        labels.append(label.name)
        cursor.blanks()
        if cursor.take(")"):
            break
        if not cursor.take("|"):
            cursor.fail("expected '|' or ')' here", "Write parts as '(q|k|v)'")
    if len(labels) < 2 or len(set(labels)) < len(labels):
        cursor.fail("these parts are not two or more different names", "Write them as '(q|k|v)'", start)
    return JoinedParts(tuple(labels), at=start)


def _factor(cursor: Cursor) -> Factor:
    """One name, `1` or `_`."""
    start = cursor.at
    if _PART.match(cursor.text, cursor.at):
        cursor.at += 1
        return PartExtent(at=start)
    if _UNIT.match(cursor.text, cursor.at):
        cursor.at += 1
        return UnitAxis()
    return read_index(cursor, "an axis", "Write a name, '(a b)', '(q|k|v)', '1', '_' or '...'")


_DROP = re.compile(r"_\s*(;|$)")


class Parsed(NamedTuple):
    """A rule as it was written. `leaf` is `None` for a drop; `options_at` is the column where options stand."""

    keys: tuple[Side, ...]
    leaf: Side | None
    options: dict[str, Option]
    options_at: int


def parse(text: str) -> Parsed:
    """The sides and options of a rule. **Raises:** `RuleError`."""
    cursor = Cursor(text)
    keys = [_side(cursor, "a key", _KEY_TO_LEAF)]
    while cursor.take("+"):
        if len(keys) == _MOST_TERMS:
            cursor.fail(f"this sum has more than {_MOST_TERMS} terms", "Write fewer")
        keys.append(_side(cursor, "a key after '+'", "Write one, or leave '+' out"))
    if not cursor.take("->"):
        cursor.fail("expected '->' here", _KEY_TO_LEAF)
    cursor.blanks()
    leaf = None if _drop(cursor) else _side(cursor, "a leaf after '->'", "Write one, or '_' to drop the key")
    if cursor.peek("+"):
        cursor.fail("leaves cannot be added, only keys", "Write a sum on the key side")
    at = cursor.at
    options = read_options(cursor) if cursor.take(";") else {}
    if not cursor.done:
        cursor.fail("the rule has ended, and more text follows", "Leave it out, or write ';' and options")
    return Parsed(tuple(keys), leaf, options, at)


def read_rule(text: str, options: Mapping[str, Option]) -> Parsed:
    """A rule of which some options stand beside its text. **Raises:** `RuleError`."""
    if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise RuleError("a rule", f"must be a text, got {type(text).__name__}: {text!r}", _KEY_TO_LEAF)
    parsed = parse(text)
    for name in options.keys() & parsed.options.keys():
        fail(text, parsed.options_at, f"option '{name}' is given both in the text and as an argument", "Leave one out")
    return parsed._replace(options={**parsed.options, **options})


def parse_pattern(text: str) -> Name:
    """A name pattern that stands alone, such as `"head.**"`. **Raises:** `RuleError`."""
    if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        problem = f"must be a text, got {type(text).__name__}: {text!r}"
        raise RuleError("a name pattern", problem, "Write a text such as 'head.**'")
    cursor = Cursor(text)
    side = _side(cursor, "a name", "Write one, such as 'head.**'")
    if not cursor.done or side.axes is not None:
        cursor.fail(
            "a name pattern holds more than a name",
            "Leave the rest out",
            len(str(side.name)) if side.axes is not None else cursor.at,
        )
    return side.name


def _drop(cursor: Cursor) -> bool:
    """Read `_` where a leaf would stand."""
    if not _DROP.match(cursor.text, cursor.at):
        return False
    cursor.at += 1
    cursor.blanks()
    return True


def _side(cursor: Cursor, expected: str, advice: str) -> Side:
    """A name and its axes, with the blanks around them."""
    cursor.blanks()
    start = cursor.at
    name = read_name(cursor)
    if cursor.at == start:
        cursor.fail(f"expected {expected}", advice)
    cursor.blanks()
    axes = read_axes(cursor) if cursor.take("[") else None
    cursor.blanks()
    return Side(name, axes, at=start)
