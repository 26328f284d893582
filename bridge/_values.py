"""Values of several fields, whose classes cost a program's start next to nothing.

A dataclass compiles its methods when its class is made, and a `typing.NamedTuple` its constructor and each annotation:
half a millisecond and a sixth, in every program that imports them. Here one method serves all classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, Field, field, make_dataclass
from functools import cache
from operator import itemgetter
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, TypeVar, dataclass_transform

T = TypeVar("T", bound="_Fields")
_set = object.__setattr__  # by name, not through `__dict__`: objects of a class then share the names


def _misfit(kind: str, fields: tuple[str, ...], values: tuple[Any, ...], named: dict[str, Any]) -> str:
    return f"{kind} has the fields {fields}, got {len(values)} and {[*named]}"


class _Fields:
    """The fields that a class declares, in their order; `dataclasses.field` means what it means there."""

    _fields: ClassVar[tuple[str, ...]]
    _makers: ClassVar[dict[str, Callable[[], Any]]]
    _wanted: ClassVar[set[str]]

    def __init_subclass__(cls) -> None:
        cls._fields = tuple(cls.__annotations__)
        given: dict[str, Field[Any]] = {name: value for name, value in vars(cls).items() if isinstance(value, Field)}
        cls._makers = {n: f.default_factory for n, f in given.items() if f.default_factory is not MISSING}
        later = {name for name, value in given.items() if not value.init}
        for name in given:
            delattr(cls, name)
        cls._wanted = {name for name in cls._fields if not hasattr(cls, name)} - cls._makers.keys() - later

    def __init__(self, *values: Any, **named: Any) -> None:
        for name, value in zip(self._fields, values, strict=False):
            _set(self, name, value)
        rest = self._fields[len(values) :]
        if rest or named or len(values) > len(self._fields):
            self._set_rest(values, {*rest}, named)
        self.__post_init__()

    def _set_rest(self, values: tuple[Any, ...], rest: set[str], named: dict[str, Any]) -> None:
        """Set the fields in `rest`, which have no place in `values`: by name, or as their class says."""
        if len(values) > len(self._fields) or not named.keys() <= rest or not self._wanted & rest <= named.keys():
            raise TypeError(_misfit(type(self).__name__, self._fields, values, named))
        for name in rest & self._makers.keys() - named.keys():
            _set(self, name, self._makers[name]())
        for name, value in named.items():
            _set(self, name, value)

    def __post_init__(self) -> None:
        """What a class does with its fields once they are set."""


@dataclass_transform(eq_default=False, field_specifiers=(field,))
class Record(_Fields):
    """A value of the fields that its class declares; a checker sees a dataclass that compares by identity."""


class _Asked:
    """What `dataclasses.fields`, `asdict` and `replace` ask a class for, made when they do."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: object, owner: type[_Fields]) -> Any:
        return getattr(_as_dataclass(owner), self.name)


@cache
def _as_dataclass(owner: type[_Fields]) -> type:
    return make_dataclass(owner.__name__, owner._fields, frozen=True)


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
class Value(_Fields):
    """A frozen value, equal to one of the same class in all fields; for a checker and for `dataclasses` a dataclass."""

    __dataclass_fields__ = _Asked()
    __dataclass_params__ = _Asked()

    def _compared(self) -> tuple[Any, ...]:
        """What equality looks at."""
        return tuple(getattr(self, name) for name in self._fields)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Value) and type(self) is type(other) and self._compared() == other._compared()

    def __hash__(self) -> int:
        return hash((type(self), self._compared()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in self._fields)})"

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is frozen: '{name}' cannot be set")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is frozen: '{name}' cannot be deleted")


def replace(value: T, **changes: Any) -> T:
    """The same value but for `changes`."""
    return type(value)(**{**vars(value), **changes})


if TYPE_CHECKING:
    from typing import NamedTuple as NamedTuple
else:

    class NamedTuple(tuple):
        """What a class from `typing.NamedTuple` can do; that one is compiled."""

        __slots__ = ()

        def __init_subclass__(cls):
            cls._fields = cls.__match_args__ = tuple(cls.__annotations__)
            cls._field_defaults = {name: vars(cls)[name] for name in cls._fields if name in vars(cls)}
            for number, name in enumerate(cls._fields):
                setattr(cls, name, property(itemgetter(number)))

        def __new__(cls, *values, **named):
            rest = cls._fields[len(values) :]
            if rest or named or len(values) > len(cls._fields):
                given = cls._field_defaults | named
                if len(values) > len(cls._fields) or not named.keys() <= {*rest} <= given.keys():
                    raise TypeError(_misfit(cls.__name__, cls._fields, values, named))
                values += tuple(given[name] for name in rest)
            return tuple.__new__(cls, values)

        def __getnewargs__(self):
            return tuple(self)

        def __repr__(self):
            return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self._asdict().items())})"

        @classmethod
        def _make(cls, values):
            return cls(*values)

        def _asdict(self):
            return dict(zip(self._fields, self, strict=True))

        def _replace(self, **changes):
            changed = type(self)(*map(changes.pop, self._fields, self))
            if changes:
                raise TypeError(_misfit(type(self).__name__, self._fields, self, changes))
            return changed
