"""Values of several fields, whose classes cost a program's start next to nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, Field, field
from typing import Any, ClassVar, dataclass_transform


@dataclass_transform(eq_default=False, field_specifiers=(field,))
class Record:
    """A value of the fields that its class declares; a checker sees a dataclass that compares by identity.

    A dataclass compiles its methods when it is made: a quarter of a millisecond for each, in every program that imports
    it. Here one method serves all classes. `dataclasses.field` means what it means there.
    """

    _fields: ClassVar[tuple[str, ...]]
    _makers: ClassVar[dict[str, Callable[[], Any]]]

    def __init_subclass__(cls) -> None:
        cls._fields = tuple(cls.__annotations__)
        given: dict[str, Field[Any]] = {name: value for name, value in vars(cls).items() if isinstance(value, Field)}
        cls._makers = {n: f.default_factory for n, f in given.items() if f.default_factory is not MISSING}
        for name in given:
            delattr(cls, name)

    def __init__(self, *values: Any, **named: Any) -> None:
        for name, make in self._makers.items():
            self.__dict__[name] = make()
        self.__dict__.update(zip(self._fields, values, strict=False), **named)
        self.__post_init__()

    def __post_init__(self) -> None:
        """What a class does with its fields once they are set."""
