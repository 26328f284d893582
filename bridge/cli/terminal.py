"""What the commands print with."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import NoReturn

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bridge._text import quote, safe

_MOST_ROWS = 1000  # rich measures and wraps each cell, which takes half a minute for 100,000 of them


class UsageError(Exception):
    """The command was called wrongly; the message says how to call it."""


class _Console(Console):
    def on_broken_pipe(self) -> NoReturn:
        raise BrokenPipeError  # `main` ends all commands in one way


def out() -> Console:
    """The console on stdout. It takes texts as they are: what looks like markup in a key is part of the key."""
    return _Console(highlight=False, markup=False, emoji=False)


def complain(message: str) -> None:
    """One error on stderr, safe to print."""
    console = _Console(stderr=True, highlight=False, markup=False, emoji=False)
    console.print(Text.assemble(("error: ", "bold red"), safe(message)), soft_wrap=True)


def ascii_json(document: str) -> str:
    """A JSON text in ASCII: a key may hold what a terminal would obey, or what it has no character for."""
    return json.dumps(json.loads(document))


def shown(name: str) -> str:
    """A name from a file, safe to print and not endless."""
    return quote(name)[1:-1]


def table(console: Console, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows under headings. A heading that begins with a blank has its column to the right, as numbers want it.

    On a terminal cells wrap within their column. Into a pipe or a file each row is one line, however long: a key that
    is cut off is no key.
    """
    cells = [[*row] for row in rows]
    if not console.is_terminal or len(cells) > _MOST_ROWS:
        console.print("\n".join(_plain(headings, cells)), soft_wrap=True)
        return
    made = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    for heading in headings:
        if heading.startswith(" "):
            made.add_column(heading[1:], justify="right", no_wrap=True)
        else:
            made.add_column(heading, overflow="fold")
    for row in cells:
        made.add_row(*(Text(cell) for cell in row))
    console.print(made)


def _plain(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The same without wrapping, a line at a time."""
    lines = [[heading.strip() for heading in headings], *rows]
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        padded: list[str] = []
        for heading, width, cell in zip(headings, widths, line, strict=True):
            blanks = " " * (width - cell_len(cell))
            padded.append(blanks + cell if heading.startswith(" ") else cell + blanks)
        yield "   ".join(padded).rstrip()


def on_terminal() -> bool:
    """Whether somebody watches: then progress may be drawn (on stderr)."""
    return sys.stderr is not None and sys.stderr.isatty()
