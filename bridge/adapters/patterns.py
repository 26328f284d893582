"""The keys of PEFT's `rank_pattern` and `alpha_pattern`: regular expressions of strangers, which are not run.

Of their language only what such patterns need is understood: word characters, `.` for any character, an escaped dot,
an escaped `d+` for digits, `^`, `$` and `|`. A name is held against them by one walk along it, whose time is at most
that of name times pattern.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

_TOKEN = re.compile(r"\\d\+|\\\.|[\w.^$|-]", re.ASCII)
_ANY, _DIGITS = ".", r"\d+"
_LONGEST = 1000  # characters of a pattern, and of a name


class _Alternative(NamedTuple):
    """One alternative: tokens in order, and whether the name has to begin with it."""

    tokens: tuple[str, ...]
    at_start: bool

    def matches(self, name: str) -> bool:
        """Whether some end of the name, from its start or from behind a dot on, is this."""
        live: set[int] = set()
        for place, character in enumerate(name):
            if place == 0 or (name[place - 1] == "." and not self.at_start):
                live.add(0)
            live = {after for number in live for after in self._after(number, character)}
        return len(self.tokens) in live

    def _after(self, number: int, character: str) -> Sequence[int]:
        if number == len(self.tokens):
            return ()
        token = self.tokens[number]
        if token == _DIGITS:
            return (number, number + 1) if character.isdecimal() else ()
        return (number + 1,) if token == _ANY or token[-1] == character else ()


class ModulePattern:
    """A pattern for the end of a module's name, from its start or a dot on, as PEFT matches it."""

    def __init__(self, text: str) -> None:
        """**Raises:** `ValueError` for a pattern that says more than is understood."""
        tokens = _TOKEN.findall(text)
        if "".join(tokens) != text or not text or len(text) > _LONGEST:
            raise ValueError("more than names, '.', '\\.', '\\d+', '^', '$' and '|'")
        self._branches = tuple(map(_branch, _split(tokens)))

    def matches(self, name: str) -> bool:
        """Whether it is the end of a module's name."""
        return len(name) <= _LONGEST and any(branch.matches(name) for branch in self._branches)


def _split(tokens: Sequence[str]) -> list[list[str]]:
    branches: list[list[str]] = [[]]
    for token in tokens:
        if token == "|":
            branches.append([])
        else:
            branches[-1].append(token)
    return branches


def _branch(tokens: list[str]) -> _Alternative:
    at_start = tokens[:1] == ["^"]
    inside = tokens[at_start : len(tokens) - (tokens[-1:] == ["$"])]
    if not inside or "^" in inside or "$" in inside:
        raise ValueError("an alternative that is empty, or '^' or '$' in the middle of one")
    return _Alternative(tuple(inside), at_start)
