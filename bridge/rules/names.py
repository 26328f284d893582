"""Reads names: dotted text with indices, choices and wildcards in it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from bridge.rules.cursor import Cursor
from bridge.rules.indices import read_index
from bridge.rules.syntax import Choice, Hole, Index, Name, Piece, Segment, Wild, joined

_PLAIN = re.compile(r"[^\s.*{}\[\]+;\\-]+")  # text at once: a key of a checkpoint may have a million characters


def read_name(cursor: Cursor) -> Name:
    """Segments up to a blank or a character of the language's own."""
    if cursor.take("''"):
        return Name(((),))
    segments: list[Segment] = []
    pieces: list[Piece] = []
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
    return Name((*segments, joined(pieces)))


def _ends(cursor: Cursor) -> bool:
    return cursor.done or cursor.blank() or cursor.text[cursor.at] in "[]+;}" or cursor.peek("->")


def _character(cursor: Cursor) -> str:
    r"""One character of plain text; `\` takes the next one as it is."""
    if cursor.take("\\") and cursor.done:
        cursor.fail("'\\' takes the next character as it is, but the text ends here", cursor.at - 1)
    cursor.at += 1
    return cursor.text[cursor.at - 1]


def _wild(cursor: Cursor, before: Sequence[Piece]) -> Wild:
    """`*`, or `**` where that is the whole segment."""
    start = cursor.at
    while cursor.take("*"):
        pass
    if cursor.at - start == 1:
        return Wild(at=start)
    if cursor.at - start > 2 or before or not (_ends(cursor) or cursor.peek(".")):
        cursor.fail("'**' stands for whole segments: write 'a.**.b'; within a segment use one '*'", start)
    return Wild(deep=True, at=start)


def _braces(cursor: Cursor, before: Sequence[Piece]) -> Hole | Choice:
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
        hole = Hole((read_index(cursor, "an index, as in '{l}', or a choice, as in '{q|k|v}'"),))
    cursor.blanks()
    if not cursor.take("}"):
        cursor.fail("expected '}'")
    if before and isinstance(before[-1], Hole):
        cursor.fail("two indices side by side: nothing says where one number ends and the next begins", start - 1)
    return hole


def _composed(cursor: Cursor, start: int) -> tuple[Index, ...]:
    """`(g i[:5])`."""
    cursor.take("(")
    indices: list[Index] = []
    cursor.blanks()
    while not cursor.take(")"):
        indices.append(read_index(cursor, "an index, as in '{(g i)}'"))
        cursor.blanks()
    if len(indices) < 2:
        cursor.fail("'{(…)}' composes two or more indices: write '{g}' for one", start)
    return tuple(indices)


def _labels(cursor: Cursor, start: int) -> tuple[str, ...]:
    """The texts that `|` divides, with the closing brace."""
    labels = [""]
    while not cursor.take("}"):
        if cursor.done:
            cursor.fail("this brace is never closed", start)
        if cursor.take("|"):
            labels.append("")
        elif len(labels) > 1 and cursor.text[cursor.at] in "*{":
            cursor.fail(f"a choice is between plain texts: '{cursor.text[cursor.at]}' is none")
        else:
            labels[-1] += _character(cursor)
    return tuple(labels)


def _choice(cursor: Cursor, labels: tuple[str, ...], start: int) -> Choice:
    if len(set(labels)) < len(labels):
        cursor.fail("a choice is between different texts: this one names a text twice", start)
    return Choice(labels, at=start)
