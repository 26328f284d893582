"""Reads indices with their selections: `l`, `l[3:]`, `l[1::2]`, `l[0,3,7]`. Names and axes both have them."""

from __future__ import annotations

import re

from bridge.rules.cursor import Cursor
from bridge.rules.syntax import Index, Selection

_IDENTIFIER = re.compile(r"[^\W\d]\w*", re.ASCII)
_INTEGER = re.compile(r"-?\d{1,18}", re.ASCII)


def read_index(cursor: Cursor, expected: str) -> Index:
    """An index, with its selection if it has one."""
    found = _IDENTIFIER.match(cursor.text, cursor.at)
    if not found or found[0] == "_":
        cursor.fail(f"expected {expected}")
    start = cursor.at
    cursor.at = found.end()
    return Index(found[0], _selection(cursor) if cursor.take("[") else None, at=start)


def _selection(cursor: Cursor) -> Selection:
    """What stands between `[` and `]` after an index."""
    start = cursor.at
    numbers = [_integer(cursor)]
    separator = "," if cursor.peek(",") else ":"
    while cursor.take(separator):
        numbers.append(_integer(cursor))
    if not cursor.take("]"):
        cursor.fail("expected ']': a selection is written '[3:]', '[1::2]', '[0,3,7]' or '[-1]'")
    if separator == "," or len(numbers) == 1:
        picked = tuple(n for n in numbers if n is not None)
        if len(picked) < len(numbers):
            cursor.fail("expected an index here, as in '[0,3,7]'", start)
        if len(set(picked)) < len(picked):
            cursor.fail("this selection names an index twice", start)
        return Selection(picked=picked)
    if len(numbers) > 3 or (len(numbers) == 3 and numbers[2] == 0):
        cursor.fail("a selection is 'start:stop:step' with a step that is not 0", start)
    return Selection(numbers[0], numbers[1], numbers[2] if len(numbers) == 3 else None)


def _integer(cursor: Cursor) -> int | None:
    """A whole number, if one comes next."""
    cursor.blanks()
    found = _INTEGER.match(cursor.text, cursor.at)
    if found:
        cursor.at = found.end()
    cursor.blanks()
    return int(found[0]) if found else None
