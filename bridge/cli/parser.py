"""What reads the words after the program's name, and says which option or command was meant."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from bridge._text import printable

_CHOICE = re.compile(r"invalid choice: '(.*)' \(choose from (.*)\)", re.DOTALL)


class CommandParser(argparse.ArgumentParser):
    """`argparse`'s, with a "did you mean" behind what it says of a word that it does not know."""

    given: Sequence[str] = ()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """As `argparse` does; but the options that a command does not have are told by it, which knows its own."""
        self.given = [] if args is None else list(args)
        found, others = super().parse_known_args(args, namespace)
        if any(word.startswith("-") for word in others):
            self.error(f"unrecognized arguments: {' '.join(others)}")
        return found, others

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and end the program."""
        # An argument may be a file name that another program made up.
        super().error(printable(f"{message}{self._meant(message)}"))

    def _meant(self, message: str) -> str:
        """What may have been meant by the words that nobody knows."""
        if choice := _CHOICE.search(message):
            known, words = re.findall(r"[\w-]+", choice[2]), [choice[1]]
        else:
            known = re.findall(r"(?<![\w-])--[\w-]+", self.format_help())
            words = [word.partition("=")[0] for word in self.given if word.startswith("--")]
        unknown = (word for word in words if not any(name.startswith(word) for name in known))
        spelled = (word[:100].replace("_", "-") for word in unknown)
        near = [name for word in spelled for name in difflib.get_close_matches(word, known, n=1)]
        return f". Did you mean {' and '.join(dict.fromkeys(near))}?" if near else ""
