"""What can be wrong between keys and leaves, as data; the report makes sentences of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from bridge.mapping.indexmap import Shape


@dataclass(frozen=True, slots=True)
class Missing:
    """A leaf, or one index of it, that nothing fills. `key` is the key that would."""

    leaf: str
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Unexpected:
    """A key that no leaf takes, and why."""

    key: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Mismatched:
    """A key whose shape is not what its leaf needs. `expected` is the shape it should have, where that is known."""

    leaf: str
    key: str
    expected: Shape | None
    got: Shape
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Conflict:
    """Anything else: a collision, two readings of a name, an extent that nothing says."""

    subject: str
    text: str
    keys: tuple[str, ...] = ()


@dataclass(slots=True)
class Problems:
    """All that was found wrong, by kind."""

    missing: list[Missing] = field(default_factory=list[Missing])
    unexpected: list[Unexpected] = field(default_factory=list[Unexpected])
    mismatched: list[Mismatched] = field(default_factory=list[Mismatched])
    conflicts: list[Conflict] = field(default_factory=list[Conflict])

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.mismatched or self.conflicts)
