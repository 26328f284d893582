"""Text to syntax: one pass from left to right, every error with its place in the text.

    rule  =  keys "->" leaves [";" options]         (see docs/rules.md for the whole grammar)
"""

from __future__ import annotations

import re
from typing import NoReturn

from bridge._errors import RuleError
from bridge._text import printable
from bridge.rules.syntax import (
    Axes,
    Axis,
    Choice,
    Factor,
    Hole,
    Index,
    Name,
    Part,
    Parts,
    Piece,
    Rest,
    Segment,
    Selection,
    Side,
    Unit,
    Wild,
)

Option = int | float | bool | str

_IDENTIFIER = re.compile(r"[^\W\d]\w*", re.ASCII)
_INTEGER = re.compile(r"-?\d{1,18}", re.ASCII)
_OPTION = re.compile(r"""([^\W\d]\w*)\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s,"']+))""", re.ASCII)
_FLOAT = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def fail(text: str, at: int, problem: str) -> NoReturn:
    """Raise a `RuleError` that shows `text` and points at column `at`."""
    raise RuleError(f"{problem}\n  {printable(text)}\n  {' ' * len(printable(text[:at]))}^")


class Parser:
    """The text of one rule and how far it has been read."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def fail(self, problem: str, at: int | None = None) -> NoReturn:
        """Raise a `RuleError` that points at `at`, by default where reading stands."""
        fail(self.text, self.at if at is None else at, problem)

    def peek(self, token: str) -> bool:
        """Whether `token` comes next."""
        return self.text.startswith(token, self.at)

    def take(self, token: str) -> bool:
        """Read `token` if it comes next."""
        if self.peek(token):
            self.at += len(token)
            return True
        return False

    def blanks(self) -> None:
        """Read white space."""
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1

    def rule(self) -> tuple[tuple[Side, ...], Side | None, dict[str, Option]]:
        """The key sides, the leaf side (`None` for a drop), the options."""
        keys = [self.side("a key")]
        while self.take("+"):
            keys.append(self.side("a key after '+'"))
        if not self.take("->"):
            self.fail("a rule is 'key -> leaf': expected '->' here")
        self.blanks()
        leaf = None if self.drop() else self.side("a leaf after '->' ('_' drops the key)")
        if self.peek("+"):
            self.fail("a sum stands on the key side only: keys are added, leaves are not")
        options = self.options() if self.take(";") else {}
        self.blanks()
        if self.at < len(self.text):
            self.fail("expected ';' and options, or the end of the rule")
        return tuple(keys), leaf, options

    def drop(self) -> bool:
        """Read `_` where a leaf would stand."""
        if not re.compile(r"_\s*(;|$)").match(self.text, self.at):
            return False
        self.at += 1
        self.blanks()
        return True

    def side(self, expected: str) -> Side:
        """A name and its axes, with the blanks around them."""
        self.blanks()
        start = self.at
        name = self.name()
        if self.at == start:
            self.fail(f"expected {expected}")
        self.blanks()
        axes = self.axes() if self.take("[") else None
        self.blanks()
        return Side(name, axes, at=start)

    # Names

    def name(self) -> Name:
        """Segments up to a blank or a character of the language's own."""
        if self.take("''"):
            return Name(((),))
        segments: list[Segment] = []
        pieces: list[Piece] = []
        while self.at < len(self.text) and not self.text[self.at].isspace() and self.text[self.at] not in "[+;]}":
            if self.peek("->"):
                break
            if self.take("."):
                segments.append(_segment(pieces))
                pieces = []
            elif self.peek("*"):
                pieces.append(self.wild(alone=not pieces))
            elif self.take("{"):
                pieces.append(self.braces())
            else:
                pieces.append(self.character())
        return Name((*segments, _segment(pieces)))

    def character(self) -> str:
        """One character of plain text, `\\` taking the next one as it is."""
        if self.take("\\") and self.at == len(self.text):
            self.fail("'\\' takes the next character as it is, but the text ends here", self.at - 1)
        self.at += 1
        return self.text[self.at - 1]

    def wild(self, *, alone: bool) -> Wild:
        """`*`, or `**` where that is the whole segment."""
        start = self.at
        while self.take("*"):
            pass
        if self.at - start == 1:
            return Wild(at=start)
        ends = self.at == len(self.text) or self.text[self.at].isspace() or self.text[self.at] in ".[+;" or self.peek("->")
        if self.at - start > 2 or not alone or not ends:
            self.fail("'**' stands for whole segments: write 'a.**.b'; within a segment use one '*'", start)
        return Wild(deep=True, at=start)

    def braces(self) -> Hole | Choice:
        """What stands between braces in a name: an index, a composition of indices, or a choice."""
        start = self.at - 1
        if self.take("("):
            indices: list[Index] = []
            self.blanks()
            while not self.take(")"):
                indices.append(self.index("an index, as in '{(g i)}'"))
                self.blanks()
            hole = Hole(tuple(indices))
            if len(indices) < 2:
                self.fail("'{(…)}' composes two or more indices: write '{g}' for one", start)
        else:
            labels = self.labels()
            if len(labels) > 1:
                return Choice(labels, at=start)
            self.at = start + 1
            hole = Hole((self.index("an index, as in '{l}', or a choice, as in '{q|k|v}'"),))
        if not self.take("}"):
            self.fail("expected '}'")
        return hole

    def labels(self) -> tuple[str, ...]:
        """The texts of a choice, with its closing brace, where `|` divides what the braces hold."""
        labels = [""]
        while not self.take("}"):
            if self.at == len(self.text):
                self.fail("this name ends inside '{': expected '}'")
            if self.take("|"):
                labels.append("")
            else:
                labels[-1] += self.character()
        return tuple(labels)

    # Indices and axes

    def index(self, expected: str) -> Index:
        """`l`, `l[3:]`, `l[1::2]`, `l[0,3,7]`."""
        found = _IDENTIFIER.match(self.text, self.at)
        if not found or found[0] == "_":
            self.fail(f"expected {expected}")
        start = self.at
        self.at = found.end()
        return Index(found[0], self.selection() if self.take("[") else None, at=start)

    def integer(self) -> int | None:
        """A whole number, if one comes next."""
        self.blanks()
        found = _INTEGER.match(self.text, self.at)
        if found:
            self.at = found.end()
        self.blanks()
        return int(found[0]) if found else None

    def selection(self) -> Selection:
        """What stands between `[` and `]` after an index."""
        start = self.at
        numbers = [self.integer()]
        separator = "," if self.peek(",") else ":"
        while self.take(separator):
            numbers.append(self.integer())
        if not self.take("]"):
            self.fail("expected ']': a selection is written '[3:]', '[1::2]', '[0,3,7]' or '[-1]'")
        if separator == "," or len(numbers) == 1:
            picked = tuple(n for n in numbers if n is not None)
            if len(picked) < len(numbers):
                self.fail("expected an index here, as in '[0,3,7]'", start)
            if len(set(picked)) < len(picked):
                self.fail("this selection names an index twice", start)
            return Selection(picked=picked)
        if len(numbers) > 3 or (len(numbers) == 3 and numbers[2] == 0):
            self.fail("a selection is 'start:stop:step' with a step that is not 0", start)
        return Selection(*numbers)

    def axes(self) -> Axes:
        """Axes up to the closing bracket."""
        axes: list[Axis | Rest] = []
        self.blanks()
        while not self.take("]"):
            start = self.at
            if self.take("..."):
                axes.append(Rest(at=start))
            elif self.take("("):
                axes.append(self.group(start))
            else:
                axes.append(Axis((self.factor(),)))
            self.blanks()
        return tuple(axes)

    def group(self, start: int) -> Axis:
        """`(h d)` as one axis, or `(q|k|v)`, after its opening parenthesis."""
        factors: list[Factor] = []
        while True:
            self.blanks()
            if self.take(")"):
                break
            inner = self.at
            factors.append(self.parts(inner) if self.take("(") else self.factor())
            self.blanks()
            if self.peek("|"):
                self.at = start + 1
                return Axis((self.parts(start),))
        if not factors:
            self.fail("'()' is empty: an axis of one is written '1'", start)
        return Axis(tuple(factors))

    def parts(self, start: int) -> Parts:
        """`q|k|v)`."""
        labels: list[str] = []
        while True:
            self.blanks()
            labels.append(self.index("the name of a part, as in '(q|k|v)'").name)
            self.blanks()
            if self.take(")"):
                break
            if not self.take("|"):
                self.fail("expected '|' or ')': parts are written '(q|k|v)'")
        if len(labels) < 2 or len(set(labels)) < len(labels):
            self.fail("parts are two or more different names: '(q|k|v)'", start)
        return Parts(tuple(labels), at=start)

    def factor(self) -> Factor:
        """One name, `1` or `_`."""
        start = self.at
        if re.compile(r"_(?!\w)").match(self.text, self.at):
            self.at += 1
            return Part(at=start)
        if re.compile(r"1(?!\w)").match(self.text, self.at):
            self.at += 1
            return Unit()
        return self.index("an axis: a name, '(a b)', '(q|k|v)', '1', '_' or '...'")

    # Options

    def options(self) -> dict[str, Option]:
        """`h=12, add=1.0 tie=true` up to the end."""
        options: dict[str, Option] = {}
        while self.at < len(self.text):
            if self.text[self.at].isspace() or self.text[self.at] == ",":
                self.at += 1
                continue
            found = _OPTION.match(self.text, self.at)
            if not found:
                self.fail("expected an option: 'h=12', 'add=1.0', 'flip=\"h w\"', 'tie=true'")
            if found[1] in options:
                self.fail(f"option '{found[1]}' stands twice")
            options[found[1]] = self.value(found)
            self.at = found.end()
        return options

    def value(self, found: re.Match[str]) -> Option:
        """The value of one option."""
        if found[4] is None:
            return found[2] if found[2] is not None else found[3]
        if found[4] in ("true", "false"):
            return found[4] == "true"
        if _INTEGER.fullmatch(found[4]):
            return int(found[4])
        if _FLOAT.fullmatch(found[4]):
            return float(found[4])
        self.fail("expected a number, true, false or a text in quotes", found.start(4))


def _segment(pieces: list[Piece]) -> Segment:
    """Pieces with neighbouring texts joined, so that one spelling has one form."""
    joined: list[Piece] = []
    for piece in pieces:
        if isinstance(piece, str) and joined and isinstance(joined[-1], str):
            joined[-1] += piece
        else:
            joined.append(piece)
    return tuple(joined)
