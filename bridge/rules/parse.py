"""Text to syntax: one pass from left to right, every error with its place in the text.

rule  =  keys "->" leaves [";" options]         (docs/rules.md has the whole grammar)
"""

from __future__ import annotations

import re

from bridge._errors import RuleError
from bridge._values import Record
from bridge.rules.axes import read_axes
from bridge.rules.cursor import Cursor
from bridge.rules.names import read_name
from bridge.rules.options import Option, read_options
from bridge.rules.syntax import Name, Side

_DROP = re.compile(r"_\s*(;|$)")


class Parsed(Record):
    """A rule as it was written. `leaf` is `None` for a drop; `options_at` is the column where options stand."""

    keys: tuple[Side, ...]
    leaf: Side | None
    options: dict[str, Option]
    options_at: int


def parse(text: str) -> Parsed:
    """The sides and options of a rule. **Raises:** `RuleError`."""
    cursor = Cursor(text)
    keys = [_side(cursor, "a key")]
    while cursor.take("+"):
        keys.append(_side(cursor, "a key after '+'"))
    if not cursor.take("->"):
        cursor.fail("a rule is 'key -> leaf': expected '->' here")
    cursor.blanks()
    leaf = None if _drop(cursor) else _side(cursor, "a leaf after '->' ('_' drops the key)")
    if cursor.peek("+"):
        cursor.fail("a sum stands on the key side only: keys are added, leaves are not")
    at = cursor.at
    options = read_options(cursor) if cursor.take(";") else {}
    if not cursor.done:
        cursor.fail("expected ';' and options, or the end of the rule")
    return Parsed(tuple(keys), leaf, options, at)


def parse_pattern(text: str) -> Name:
    """A name pattern that stands alone, such as `"head.**"`. **Raises:** `RuleError`."""
    if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise RuleError(f"a name pattern is a text such as 'head.**', not {type(text).__name__}: {text!r}")
    cursor = Cursor(text)
    side = _side(cursor, "a name, such as 'head.**'")
    if not cursor.done or side.axes is not None:
        cursor.fail("a name pattern is a name and no more", len(str(side.name)) if side.axes is not None else cursor.at)
    return side.name


def _drop(cursor: Cursor) -> bool:
    """Read `_` where a leaf would stand."""
    if not _DROP.match(cursor.text, cursor.at):
        return False
    cursor.at += 1
    cursor.blanks()
    return True


def _side(cursor: Cursor, expected: str) -> Side:
    """A name and its axes, with the blanks around them."""
    cursor.blanks()
    start = cursor.at
    name = read_name(cursor)
    if cursor.at == start:
        cursor.fail(f"expected {expected}")
    cursor.blanks()
    axes = read_axes(cursor) if cursor.take("[") else None
    cursor.blanks()
    return Side(name, axes, at=start)
