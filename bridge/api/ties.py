"""Messages about tied keys: keys with the same bytes in a file, or keys that a rule ties."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bridge._errors import CheckpointError
from bridge._text import quote

if TYPE_CHECKING:
    from bridge.format.table import Table
    from bridge.planning.plan import Plan


def tell_ties(specs: Table, made: Plan) -> None:
    """Add to each unexpected key the key with the same bytes that the plan reads, if there is one."""
    numbers = specs.numbers

    def place(key: str) -> tuple[int, int, int]:
        number = numbers[key]
        return int(specs.ranks[number]), int(specs.offsets[number]), int(specs.kinds[number])

    read: dict[tuple[int, int, int], str] = {}
    for key in made.keys:
        if specs.forms[place(key)[2]].nbytes:  # what has no elements lies anywhere
            read.setdefault(place(key), key)
    unexpected = made.problems.unexpected
    for n, problem in enumerate(unexpected):
        other = None if problem.reason else read.get(place(problem.key))
        if other is not None:
            unexpected[n] = problem._replace(reason=f"tied: the same bytes as key {quote(other)}")


class TieError(CheckpointError):
    """Two keys that are tied have different values; `tied` are the two."""

    def __init__(
        self, subject: str, problem: str, advice: str | None = None, *, tied: tuple[str, str] = ("", "")
    ) -> None:
        super().__init__(subject, problem, advice)
        self.tied = tied


@contextmanager
def ties_named(made: Plan) -> Generator[None]:
    """A context for reads: an error about a tie names both keys."""
    try:
        yield
    except CheckpointError as error:
        from bridge.stream.convert import UntiedError  # errors alone

        other = _other_key(made, error.key) if isinstance(error, UntiedError) else None
        if not isinstance(error, UntiedError) or other is None:
            raise
        problem = error.problem.replace("another key", quote(other), 1)
        raise TieError(error.subject, problem, error.advice, tied=(error.key, other)) from error


def _other_key(made: Plan, key: str) -> str | None:
    """The key that fills the leaf with which `key` is compared."""
    rows = [(block, row) for block in made.blocks for row in range(len(block))]
    filled = {
        (block.leaves[row], tuple(block.starts[row])): block.terms[0].keys[row] for block, row in rows if not block.tie
    }
    tied = ((block, row) for block, row in rows if block.tie and block.terms[0].keys[row] == key)
    return next((filled.get((block.leaves[row], tuple(block.starts[row]))) for block, row in tied), None)
