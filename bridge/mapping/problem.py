"""What can be wrong between keys and leaves, as data; the report makes sentences of it."""

from __future__ import annotations

from typing import NamedTuple

from bridge.mapping.indexmap import Shape


class Missing(NamedTuple):
    """A leaf, or the part of it at `place` (`[7]`), that nothing fills. `key` is the key that would.

    `optional` says that the part may stay empty if the caller allows it.
    """

    name: str
    key: str | None = None
    place: str = ""
    optional: bool = False

    @property
    def leaf(self) -> str:
        """The leaf with its place: `layers.weight[7]`."""
        return self.name + self.place


class Unexpected(NamedTuple):
    """A key, or some elements of it, that no leaf takes, and why.

    `axes` are those of a rule that drops just the elements, where others are taken.
    """

    key: str
    reason: str = ""
    axes: str = ""


class Mismatched(NamedTuple):
    """A key whose shape is not what its leaf needs, at `place` of it.

    `expected` is the shape that the key should have, where that is known. Where it has it, `reason` says what else is
    wrong.
    """

    name: str
    key: str
    expected: Shape | None
    got: Shape
    reason: str = ""
    place: str = ""

    @property
    def leaf(self) -> str:
        """The leaf with its place: `layers.weight[7]`."""
        return self.name + self.place


class Conflict(NamedTuple):
    """Anything else: a collision, two readings of a name, an extent that nothing says. `text` may be several lines."""

    subject: str
    text: str
    keys: tuple[str, ...] = ()


class Nature(NamedTuple):
    """What a checkpoint is that is no plain model: a clause that says so, and what to do then.

    Its report gives no advice about `keys` one by one.
    """

    said: str
    advice: str
    keys: frozenset[str]


class Problems:
    """All that was found wrong, by kind; and what the checkpoint is, where that explains it."""

    def __init__(self) -> None:
        self.missing: list[Missing] = []
        self.unexpected: list[Unexpected] = []
        self.mismatched: list[Mismatched] = []
        self.conflicts: list[Conflict] = []
        self.nature: Nature | None = None

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.mismatched or self.conflicts)
