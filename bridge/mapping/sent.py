"""`Sent`: keys on their way to one name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from functools import cached_property
from typing import Any, cast

import numpy as np

from bridge._text import filled
from bridge._values import Record
from bridge.mapping.keys import Keys, KeyTable, Numbers
from bridge.mapping.places import Matrix, Places, Row
from bridge.mapping.target import Number
from bridge.rules.rule import Rule
from bridge.rules.syntax import NO_NAME, Name


class Sent(Record):
    """Keys that one side of a rule sends to one name, up to indices.

    `rows` are the numbers in `keys`; the first columns are the positions of `variables`. `target` has a `{}` for each
    of the `indices` of the leaf's name; it is `None` for a drop. `picks` says for each of the rule's choices which
    branch this is. `stacked` are the columns of indices that the rule drops from the name without giving them an axis.
    `key_name` and `leaf_name` spell just this way, for `Plan.rules`; `spell` makes the first when somebody asks. Ways
    of one rule that differ only in a choice that an axis holds have the same `group`.
    """

    rule: Rule
    number: int
    side: int
    picks: tuple[int, ...]
    variables: tuple[str, ...]
    spell: Callable[[], Name]
    target: str | None = None
    leaf_name: Name = NO_NAME
    indices: tuple[Number, ...] = ()
    stacked: tuple[int, ...] = ()
    group: str = ""
    taken: list[tuple[Numbers | list[int], Matrix | list[Row]]] = field(default_factory=list[Any])
    keys: Keys = field(init=False)
    rows: Places = field(init=False)

    @cached_property
    def key_name(self) -> Name:
        """The name of the keys, as the side of a rule that matches no others."""
        return self.spell()

    def take(self, number: int, row: Row) -> None:
        """Add one key of the table."""
        if not self.taken or not isinstance(self.taken[-1][1], list):
            self.taken.append(([], []))
        numbers, rows = self.taken[-1]
        cast("list[int]", numbers).append(number)
        cast("list[Row]", rows).append(row)

    def take_all(self, keys: Keys, rows: Matrix) -> None:
        """Add the keys of a bundle."""
        self.taken.append((keys.numbers, rows))

    def settle(self, table: KeyTable) -> Sent:
        """All keys are here: make `keys` and `rows` of them."""
        numbers = [np.asarray(part, np.intp) for part, _ in self.taken]
        self.keys = Keys(table, numbers[0] if len(numbers) == 1 else np.concatenate(numbers))
        parts = [Places(rows) for _, rows in self.taken]
        self.rows = parts[0] if len(parts) == 1 else Places([row for part in parts for row in part])
        self.taken = []
        return self

    def numbers(self) -> Places:
        """For each key the indices of the name that it is sent to."""
        if any(number.codec is not None or not number.columns for number in self.indices):
            return Places([tuple([number.value(row) or 0 for number in self.indices]) for row in self.rows])
        return self.rows.columns([number.columns[0] for number in self.indices])

    def names(self) -> list[str]:
        """For each key the very name that it is sent to."""
        return [filled(self.target or "", numbers) for numbers in self.numbers()]
