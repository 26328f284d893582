"""JSON as the reference reader takes it, and no name twice in one object.

Python's `json` lets NaN, lone surrogates, repeated names and `-0` as an integer through, recurses until the stack ends,
and raises `ValueError` for integers of some thousand digits. Those doors are closed here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any, TypeGuard

from bridge._errors import CheckpointError
from bridge._text import human_nbytes, quote

MAX_DEPTH = 127
_MAX_INT = 2**64 - 1


def loads(raw: bytes | bytearray, *, subject: str, advice: str) -> Any:
    """Parse `raw`.

    An `int` in the result was written as an integer and lies within ±(2**64 - 1); every other number is a `float`.

    **Arguments:**

    - `raw`: UTF-8, without a byte order mark.
    - `subject`: what is being parsed, for messages: `"'model.safetensors': its header"`.
    - `advice`: the sentence that ends each message: what to do next.

    **Returns:** dicts, lists, strings, numbers, booleans, None. `CheckpointError` for anything else.
    """
    try:
        value = _DECODER.decode(raw.decode("utf-8"))
        _check(value)
    except _RefusedError as e:
        problem, cause = str(e), e
    except UnicodeDecodeError as e:
        problem, cause = f"is not UTF-8: byte 0x{raw[e.start]:02x} at {e.start}", e
    except json.JSONDecodeError as e:
        problem, cause = f"is not JSON from line {e.lineno} column {e.colno} on", e
    except RecursionError as e:
        problem, cause = f"is nested deeper than {MAX_DEPTH} levels", e
    except MemoryError as e:  # a hundred megabytes of brackets become gigabytes of lists
        problem, cause = f"of {human_nbytes(len(raw))} takes more memory than there is", e
    else:
        return value
    raise CheckpointError(subject, problem, advice) from cause


def is_object(value: Any) -> TypeGuard[dict[str, Any]]:
    """Whether a parsed value is a JSON object."""
    return isinstance(value, dict)


def is_list(value: Any) -> TypeGuard[list[Any]]:
    """Whether a parsed value is a JSON list."""
    return isinstance(value, list)


def kind(value: Any) -> str:
    """What a parsed value is, for messages: `a string`, `the number 2.0`."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return f"the number {value}"
        case str():
            return f"the string {quote(value)}"
        case list():
            return "a list"
        case _:
            return "an object"


class _RefusedError(ValueError):
    """What is wrong, as the rest of a sentence whose subject is the text."""


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise _RefusedError(f"holds the name {quote(twice)} twice in one object")
    return made


def _int(text: str) -> int | float:
    # The digits are counted before they are converted: Python refuses to convert thousands of them.
    if len(text) <= 21 and text != "-0":
        value = int(text)
        if abs(value) <= _MAX_INT:
            return value
    return _float(text)


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise _RefusedError(f"holds the number {quote(text)}, which is out of range")
    return value


def _constant(text: str) -> Any:
    raise _RefusedError(f"holds {text}, which JSON does not know")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_int, parse_float=_float, parse_constant=_constant)


def _check(value: Any) -> None:
    """Refuse lone surrogates and deep nesting. Level by level, so that no depth is too much for the check itself."""
    level: list[Any] = [value]
    depth = 0
    while level:
        below: list[Any] = []
        strings: list[str] = []
        containers = False
        for item in level:
            if isinstance(item, str):
                strings.append(item)
            elif is_object(item):
                containers = True
                strings += item
                below += item.values()
            elif is_list(item):
                containers = True
                below += item
        _check_strings(strings)
        depth += containers
        if depth > MAX_DEPTH:
            raise _RefusedError(f"is nested deeper than {MAX_DEPTH} levels")
        level = below


def _check_strings(strings: Iterable[str]) -> None:
    for text in strings:
        if text.isascii():
            continue
        try:
            text.encode()
        except UnicodeEncodeError as e:
            raise _RefusedError(f"holds a lone surrogate, which is not a character, in {quote(text)}") from e
