"""A rule's text as it is read, its indices and its options: what stands after `;` or is given by keyword."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any, NoReturn

from bridge._errors import RuleError
from bridge._text import printable, quote
from bridge.rules.syntax import Index, Selection, Side

_SHOWN = 400


def fail(text: str, at: int, problem: str, advice: str) -> NoReturn:
    """Raise a `RuleError` that shows `text` and points at column `at`."""
    subject = f"rule {quote(text)}"
    if len(text) > _SHOWN:  # what stands around the place
        first = max(0, at - _SHOWN // 2)
        text, at = text[first : first + _SHOWN], at - first
    excerpt = f"\n  {printable(text)}\n  {' ' * len(printable(text[:at]))}^"
    raise RuleError(subject, f": {problem}", advice, excerpt=excerpt)


class Cursor:
    """The text of one rule and how far it has been read."""

    __slots__ = ("at", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    @property
    def done(self) -> bool:
        """Whether all of the text has been read."""
        return self.at == len(self.text)

    def fail(self, problem: str, advice: str, at: int | None = None) -> NoReturn:
        """Raise a `RuleError` that points at `at`, by default where reading stands."""
        fail(self.text, self.at if at is None else at, problem, advice)

    def peek(self, token: str) -> bool:
        """Whether `token` comes next."""
        return self.text.startswith(token, self.at)

    def take(self, token: str) -> bool:
        """Read `token` if it comes next."""
        if self.peek(token):
            self.at += len(token)
            return True
        return False

    def blank(self) -> bool:
        """Whether white space comes next."""
        return not self.done and self.text[self.at].isspace()

    def blanks(self) -> None:
        """Read white space."""
        while self.blank():
            self.at += 1


Option = int | float | bool | str

FLAGS = ("tie", "copy", "alt", "zeros")
NUMBERS = ("scale", "add")
WORDS = frozenset({*FLAGS, *NUMBERS, "flip"})
"""Names that no axis, index or part can have."""

_OPTION = r"""([^\W\d]\w*)\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s,"']+))"""  # compiled where a rule has options
_IDENTIFIER = re.compile(r"[^\W\d]\w*", re.ASCII)
_INTEGER = re.compile(r"-?\d{1,18}", re.ASCII)
_DIGITS = 10**18  # whole numbers have at most 18 digits
_FLOAT = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"


class Options:
    """The options of one rule. `sizes` are extents of axes and parts, and counts of indices, sorted by name."""

    __slots__ = ("add", "alt", "copy", "flip", "scale", "sizes", "tie", "zeros")

    def __init__(
        self,
        sizes: tuple[tuple[str, int], ...] = (),
        scale: float | int = 1,
        add: float | int = 0,
        flip: tuple[str, ...] = (),
        tie: bool = False,
        copy: bool = False,
        alt: bool = False,
        zeros: bool = False,
    ) -> None:
        self.sizes, self.scale, self.add, self.flip = sizes, scale, add, flip
        self.tie, self.copy, self.alt, self.zeros = tie, copy, alt, zeros

    @property
    def valued(self) -> bool:
        """Whether values change."""
        return self.scale != 1 or self.add != 0

    def with_sizes(self, sizes: tuple[tuple[str, int], ...]) -> Options:
        """The same options for other extents."""
        return Options(sizes, self.scale, self.add, self.flip, self.tie, self.copy, self.alt, self.zeros)

    def __bool__(self) -> bool:
        return bool(str(self))

    def __str__(self) -> str:
        shown = [f"{name}={size}" for name, size in self.sizes]
        shown += [f"scale={self.scale!r}"] * (self.scale != 1) + [f"add={self.add!r}"] * (self.add != 0)
        shown += [f'flip="{" ".join(self.flip)}"'] * bool(self.flip)
        shown += [f"{name}=true" for name in FLAGS if getattr(self, name)]
        return " ".join(shown)


def rule_text(keys: Sequence[Side], leaf: Side | None, options: Options) -> str:
    """The text of a rule of these parts."""
    text = " + ".join(map(str, keys)) + " -> " + ("_" if leaf is None else str(leaf))
    return f"{text} ; {options}" if options else text


def read_options(cursor: Cursor) -> dict[str, Option]:
    """`h=12, add=1.0 tie=true` up to the end."""
    options: dict[str, Option] = {}
    option = re.compile(_OPTION, re.ASCII)
    while not cursor.done:
        if cursor.blank() or cursor.peek(","):
            cursor.at += 1
            continue
        found = option.match(cursor.text, cursor.at)
        if not found:
            cursor.fail("expected an option", "Write one such as 'h=12', 'add=1.0', 'flip=\"h w\"' or 'tie=true'")
        if found[1] in options:
            cursor.fail(f"option '{found[1]}' is given twice", "Leave one out")
        options[found[1]] = _value(cursor, found)
        cursor.at = found.end()
    return options


def _value(cursor: Cursor, found: re.Match[str]) -> Option:
    """The value of one option."""
    if found[4] is None:
        return found[2] if found[2] is not None else found[3]
    if found[4] in ("true", "false"):
        return found[4] == "true"
    if _INTEGER.fullmatch(found[4]):
        return int(found[4])
    if re.fullmatch(_FLOAT, found[4], re.ASCII):
        return float(found[4])
    cursor.fail(
        "this cannot be the value of an option", "Write a number, true, false or a text in quotes", found.start(4)
    )


def settled(text: str, at: int, given: Mapping[str, Option]) -> Options:
    """Options by name as `Options`, each of the type that it must have.

    **Raises:** `RuleError`, pointing at column `at` of `text`.
    """
    options: dict[str, Any] = {}
    sizes: dict[str, int] = {}
    for name, value in given.items():
        if name in FLAGS:
            if not isinstance(value, bool):
                fail(text, at, f"option '{name}' is {value!r}", "Write true or false")
            options[name] = value
        elif name == "flip":
            if not isinstance(value, str) or not value.split():
                fail(text, at, f"option 'flip' is {value!r}", 'Write the names of axes, as in flip="h w"')
            options[name] = tuple(value.replace(",", " ").split())
        elif name in NUMBERS:
            options[name] = _number(text, at, name, value)
        elif isinstance(value, bool) or not isinstance(value, int) or not 0 < value < _DIGITS:
            fail(
                text,
                at,
                f"option '{name}' is {value!r}, but it is the extent of an axis",
                "Write a whole number from 1 up",
            )
        else:
            sizes[name] = int(value)
    return Options(tuple(sorted(sizes.items())), **options)


def _number(text: str, at: int, name: str, value: Option) -> float | int:
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not (abs(value) < _DIGITS if isinstance(value, int) else isfinite(value))
    ):
        fail(text, at, f"option '{name}' is {value!r}", "Write a finite number")
    if name == "scale" and value == 0:
        fail(text, at, "option 'scale' is 0, which leaves nothing of the tensor", "Write another number")
    # Subclasses, such as numpy's, would not read back.
    return int(value) if isinstance(value, int) else float(value)


def read_index(cursor: Cursor, expected: str, advice: str) -> Index:
    """An index, with its selection if it has one."""
    found = _IDENTIFIER.match(cursor.text, cursor.at)
    if not found or found[0] == "_":
        cursor.fail(f"expected {expected} here", advice)
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
        cursor.fail("expected ']' here", "Write a selection as '[3:]', '[1::2]', '[0,3,7]' or '[-1]'")
    if separator == "," or len(numbers) == 1:
        picked = tuple(n for n in numbers if n is not None)
        if len(picked) < len(numbers):
            cursor.fail("expected an index here", "Write one, as in '[0,3,7]'", start)
        if len(set(picked)) < len(picked):
            cursor.fail("this selection names an index twice", "Name it once", start)
        return Selection(picked=picked)
    if len(numbers) > 3 or (len(numbers) == 3 and numbers[2] == 0):
        cursor.fail(
            "this selection is not 'start:stop:step' with a step that is not 0", "Write it as '[3:]' or '[1::2]'", start
        )
    return Selection(numbers[0], numbers[1], numbers[2] if len(numbers) == 3 else None)


def _integer(cursor: Cursor) -> int | None:
    """A whole number, if one comes next."""
    cursor.blanks()
    found = _INTEGER.match(cursor.text, cursor.at)
    if found:
        cursor.at = found.end()
    cursor.blanks()
    return int(found[0]) if found else None
