"""Reads axes: what stands in brackets after a name, in einops' notation."""

from __future__ import annotations

import re

from bridge.rules.cursor import Cursor
from bridge.rules.indices import read_index
from bridge.rules.syntax import Axes, Axis, Factor, Part, Parts, Rest, Unit

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
        cursor.fail("'()' is empty: an axis of one is written '1'", start)
    return Axis(tuple(factors))


def _parts(cursor: Cursor, start: int) -> Parts:
    """`q|k|v)`."""
    labels: list[str] = []
    while True:
        cursor.blanks()
        label = read_index(cursor, "the name of a part, as in '(q|k|v)'")
        if label.selection is not None:
            cursor.fail("a part is taken whole: it has no selection", label.at)
        labels.append(label.name)
        cursor.blanks()
        if cursor.take(")"):
            break
        if not cursor.take("|"):
            cursor.fail("expected '|' or ')': parts are written '(q|k|v)'")
    if len(labels) < 2 or len(set(labels)) < len(labels):
        cursor.fail("parts are two or more different names: '(q|k|v)'", start)
    return Parts(tuple(labels), at=start)


def _factor(cursor: Cursor) -> Factor:
    """One name, `1` or `_`."""
    start = cursor.at
    if _PART.match(cursor.text, cursor.at):
        cursor.at += 1
        return Part(at=start)
    if _UNIT.match(cursor.text, cursor.at):
        cursor.at += 1
        return Unit()
    return read_index(cursor, "an axis: a name, '(a b)', '(q|k|v)', '1', '_' or '...'")
