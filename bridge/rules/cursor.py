"""A text and how far it has been read. What every part of the parser shares; an error knows its place."""

from __future__ import annotations

from typing import NoReturn

from bridge._errors import RuleError
from bridge._text import printable


def fail(text: str, at: int, problem: str) -> NoReturn:
    """Raise a `RuleError` that shows `text` and points at column `at`."""
    raise RuleError(f"{problem}\n  {printable(text)}\n  {' ' * len(printable(text[:at]))}^")


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

    def blank(self) -> bool:
        """Whether white space comes next."""
        return not self.done and self.text[self.at].isspace()

    def blanks(self) -> None:
        """Read white space."""
        while self.blank():
            self.at += 1
