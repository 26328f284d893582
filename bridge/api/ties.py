"""What a plan says of keys that are tied in their file: two names of the same bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge._text import quote

if TYPE_CHECKING:
    from bridge.format.table import Table
    from bridge.planning.plan import Plan


def tell_ties(specs: Table, made: Plan) -> None:
    """Say of each unexpected key which key that the plan reads has the same bytes."""
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
