"""Reads a config.json without guesses: an unknown field or value is an error."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NoReturn

import bridge
from bridge.models._bookkeeping import BOOKKEEPING, GENERATION, OFF
from bridge.models._json import safe


class Fields:
    """The fields of a config. Each is read once and checked; `done` raises an error for fields that were not read.

    **Arguments:**

    - `data`: the content of config.json.
    - `name`: the name of the file in messages.
    - `ignore`: unknown fields that change nothing. A field of a nested object is written `object.field`.
    - `parts`: choices of the caller that no config.json mentions: parts of the model, or its head.
    - `advice`: the advice of messages about a wrong value.

    **Raises:** `bridge.CheckpointError`, from every method; it names file and field.

    ```python
    fields = Fields({"hidden_size": 64, "hidden_act": "gelu"})
    width = fields.count("hidden_size")
    activation = fields.one_of("hidden_act", ["gelu", "relu"], default="gelu")
    fields.done()
    ```
    """

    def __init__(
        self,
        data: Mapping[str, Any],
        *,
        name: str = "config.json",
        ignore: Collection[str] = (),
        parts: Mapping[str, bool | str] | None = None,
        advice: str = "Correct the field, or load the weights into a model of your own",
    ) -> None:
        if not isinstance(data, Mapping):
            raise bridge.CheckpointError(
                f"'{safe(name)}'", f"holds {_spelled(data)}, not an object of fields", "Fetch it again"
            )
        self._left = dict(data)
        self._name = f"'{safe(name)}'"
        self._prefix = ""
        self._ignore = ignore
        self._parts = dict(parts or {})
        self._advice = advice

    def fill(self, defaults: Mapping[str, Any]) -> None:
        """Give values for fields that the file does not have."""
        self._left = {**defaults, **self._left}

    def count(self, field: str, *, default: int | None = None) -> int:
        """A whole number from 1 up."""
        value = self._take(field, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            self.refuse(field, value, "a whole number from 1 up")
        return self._limited(field, value)

    def number(self, field: str, *, default: float | None = None, zero: bool = False) -> float:
        """A finite number above 0; or, if `zero`, 0."""
        value, least = self._take(field, default), 0.0 if zero else math.nextafter(0.0, 1.0)
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= sys.float_info.max:
            self.refuse(field, value, "a number from 0 up" if zero else "a number above 0")
        return float(value)

    def optional(self, field: str) -> float | None:
        """A finite number above 0, or null, which gives `None`."""
        return None if self._left.get(field) is None else self.number(field)

    def numbers(self, field: str, *, signed: bool = False) -> tuple[float, ...]:
        """A list of finite numbers above 0; if `signed`, of any finite numbers."""
        value = self._take(field, None)
        least = -sys.float_info.max if signed else math.nextafter(0.0, 1.0)
        if not isinstance(value, list) or not all(
            isinstance(each, int | float) and not isinstance(each, bool) and least <= each <= sys.float_info.max
            for each in value
        ):
            self.refuse(field, value, "a list of numbers" if signed else "a list of numbers above 0")
        return tuple(map(float, value))

    def whole(self, field: str, *, default: int) -> int:
        """A whole number from 0 up."""
        value = self._take(field, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            self.refuse(field, value, "a whole number from 0 up")
        return self._limited(field, value)

    def wholes(self, field: str, *, default: Sequence[int] = (), least: int = 0, count: int = 0) -> tuple[int, ...]:
        """A list of whole numbers from `least` up, `count` of them if that is given; null gives `default`."""
        value = self._take(field, default)
        known = isinstance(value, list | tuple) and all(type(each) is int and each >= least for each in value)
        if not known or (count and len(value) != count):
            self.refuse(field, value, f"a list of {f'{count} ' if count else ''}whole numbers from {least} up")
        return tuple(self._limited(field, each) for each in value)

    def window(self, field: str) -> int | None:
        """A whole number from 1 up, or null, which gives `None`."""
        return None if self._left.get(field) is None else self.count(field)

    def limit(self, field: str) -> int | None:
        """A whole number from 1 up; null, 0 and -1 give `None`."""
        value = self._left.pop(field, None)
        if value is None or (value in (0, -1) and type(value) is int):
            return None
        self._left[field] = value
        return self.count(field)

    def words(self, field: str, known: Collection[str]) -> frozenset[str]:
        """Some of the texts in `known`: a list of them, one text with `|` between them, or null."""
        value = self._left.pop(field, None)
        words = [word.strip().lower() for word in value.split("|")] if isinstance(value, str) else value or []
        if not isinstance(words, list) or any(word not in known for word in words):
            self.refuse(field, value, f"some of {', '.join(map(_spelled, known))}")
        return frozenset(words)

    def nothing(self, field: str) -> None:
        """A field that must be null or absent."""
        value = self._left.pop(field, None)
        if value is not None:
            self.refuse(field, value, "null")

    def flag(self, field: str, *, default: bool) -> bool:
        """`true` or `false`."""
        return self.one_of(field, [True, False], default=default)

    def text(self, field: str) -> str:
        """Any text."""
        value = self._take(field, None)
        if not isinstance(value, str):
            self.refuse(field, value, "a text")
        return value

    def layer_types(self, layers: int) -> tuple[str, ...] | None:
        """For each layer `"full_attention"` or `"sliding_attention"`; null gives `None`."""
        value = self._left.pop("layer_types", None)
        if value is None:
            return None
        known = ("full_attention", "sliding_attention")
        if not isinstance(value, list) or len(value) != layers or any(each not in known for each in value):
            self.refuse("layer_types", value, f"a list of {layers}, each {' or '.join(map(_spelled, known))}")
        return tuple(value)

    def inner(self, field: str) -> Fields | None:
        """The fields of a nested object, written `field.name` in messages; null gives `None`."""
        value = self._left.pop(field, None)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            self.refuse(field, value, "an object of fields")
        inner = Fields(value, name=self._name[1:-1], ignore=self._ignore, advice=self._advice)
        inner._prefix = f"{self._prefix}{field}."
        return inner

    def object_or_none(self, field: str) -> Fields | None:
        """The same as `inner`; if the field is no object, `None`, and the field is still unread."""
        return self.inner(field) if isinstance(self._left.get(field), Mapping) else None

    def has(self, *names: str) -> bool:
        """Whether any of these fields is present."""
        return any(name in self._left for name in names)

    def either(self, *names: str) -> Fields | None:
        """The nested object of one of several fields, as for `inner`; it is an error if two of them are not empty."""
        told = [name for name in names if self._left.get(name)]
        if len(told) > 1:
            self.refuse(told[1], self._left[told[1]], f"null, because '{told[0]}' is set too")
        found = [self.inner(name) for name in names]
        return next((each for each, name in zip(found, names, strict=True) if name in told), None)

    def pair(self, field: str, *, default: tuple[int, int]) -> tuple[int, int]:
        """Two whole numbers from 1 up, or one number for both."""
        value = self._take(field, default)
        pair = [value, value] if isinstance(value, int) else value
        if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(type(n) is int and n > 0 for n in pair):
            self.refuse(field, value, "a whole number from 1 up, or two of them")
        return self._limited(field, pair[0]), self._limited(field, pair[1])

    def labels(self) -> tuple[str, ...]:
        """The names of a classifier's labels, in order; two labels if config.json names none."""
        names = self._take("id2label", {})
        if not isinstance(names, Mapping) or sorted(map(str, names)) != sorted(map(str, range(len(names)))):
            self.refuse("id2label", names, "an object that names labels by their numbers, from 0 on")
        if not names:
            return tuple(f"LABEL_{number}" for number in range(self.count("num_labels", default=2)))
        return tuple(str(name) for _, name in sorted(names.items(), key=lambda item: int(item[0])))

    def one_of(self, field: str, known: Collection[Any], *, default: Any) -> Any:
        """One of the values in `known`. `false` does not count as 0, `true` not as 1."""
        value = self._take(field, default)
        if not any(value == each and type(value) is type(each) for each in known):
            self.refuse(field, value, " or ".join(_spelled(each) for each in known))
        return value

    def part(self, name: str, *, default: bool) -> bool:
        """Whether the caller wants a part of the model that no config.json mentions, for example a pooler."""
        return bool(self._parts.pop(name, default))

    def head(self, known: Collection[str]) -> str:
        """The head that the caller wants, one of `known`; `""` for none."""
        head = self._parts.pop("head", "") or ""
        if head and head not in known:
            raise TypeError(f"this model has no head {head!r}, but {', '.join(map(repr, known))}")
        return str(head)

    def done(self, unused: Collection[str] = ()) -> None:
        """Raise an error for every field that was not read, except private fields and fields that change nothing.

        `unused`: fields of this architecture that change nothing. **Raises:** also `TypeError`, for a part that the
        architecture does not have.
        """
        for field, value in self._left.items():
            known = field.startswith("_") or field in BOOKKEEPING | GENERATION or field in unused
            known = known or (field in OFF and value in (False, {}))
            if not known and self._prefix + field not in self._ignore and value is not None:
                name = safe(self._prefix + field)
                raise bridge.CheckpointError(
                    self._name,
                    f": field '{name}' is {_spelled(value)}, and this model does not know it",
                    f'Give ignore=["{name}"] if it changes nothing',
                )
        if self._parts:
            raise TypeError(f"this model has no part {', '.join(map(repr, self._parts))} that could be chosen")

    def refuse(self, field: str, value: Any, expected: str) -> NoReturn:
        """Raise the error that says what was expected of a field."""
        raise bridge.CheckpointError(
            self._name,
            f": field '{self._prefix}{field}' is {_spelled(value)}, expected {expected}",
            self._advice,
        )

    def _limited(self, field: str, value: int) -> int:
        """A whole number that JAX's own, of 32 bits, has room for."""
        if value >= 1 << 31:
            self.refuse(field, value, "a whole number below 2**31")
        return value

    def _take(self, field: str, default: Any) -> Any:
        value = self._left.pop(field, default)
        if value is None and default is None:
            raise bridge.CheckpointError(
                self._name, f"lacks field '{self._prefix}{field}', which this model needs", "Fetch it again"
            )
        return default if value is None else value


def _spelled(value: Any) -> str:
    """A value as JSON, cut where it is long; JSON's escapes keep it printable."""
    try:
        text = json.dumps(value, default=repr)
    except (ValueError, RecursionError):  # nested without end, or a number of thousands of digits
        text = f"a {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:60]}…"
