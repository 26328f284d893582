"""What the values of a pickle become: plain Python where that is inert by itself, else one of these.

None of them compares or hashes by what it holds: a value nested in itself would do so without end.
"""

from __future__ import annotations

from typing import Any

import numpy as np


class OldText(bytes):
    """Text of Python 2 that is not ASCII: characters or bytes, nobody can tell."""


class Dict(dict[str, Any]):
    """A dict, an OrderedDict and their like, by the text keys alone; `others` counts the entries with other keys.

    Other keys are not kept: to hash numbers and tuples that somebody has chosen can take quadratic time, or forever.
    """

    __slots__ = ("others",)

    def __init__(self) -> None:
        super().__init__()
        self.others = 0

    def put(self, key: Any, value: Any) -> None:
        """Set an entry, or count it."""
        if type(key) is str:
            self[key] = value
        elif type(key) is OldText:
            self[key.decode("utf-8", "backslashreplace")] = value
        else:
            self.others += 1


class Set(list[Any]):
    """A set, as the list of what was put into it."""

    __slots__ = ()


class Plain:
    """A value that is known, harmless and no tensor: a dtype, a device."""

    __slots__ = ("what",)

    def __init__(self, what: str) -> None:
        self.what = what


class Global:
    """A class or a function, by its name. It is never looked up, let alone called."""

    __slots__ = ("module", "name", "path")

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name
        self.path = f"{module}.{name}"


class Object:
    """What a class or function that has no meaning here would make: `origin` is its name, `state` what it was given.

    `called` says that a function or class would have been called with arguments, not merely an instance made.
    """

    __slots__ = ("called", "origin", "state")

    def __init__(self, origin: str, *, called: bool) -> None:
        self.origin, self.called = origin, called
        self.state: Any = None


class Storage:
    """A storage as the pickle speaks of it: `numel` elements of `kind`, PyTorch's name of a dtype, or bytes if None.

    `window` is (start, count) in elements for the views that PyTorch < 0.4 wrote; they share the storage `key`.
    """

    __slots__ = ("key", "kind", "numel", "window")

    def __init__(self, key: str, kind: str | None, numel: int, window: tuple[int, int] | None) -> None:
        self.key, self.kind, self.numel, self.window = key, kind, numel, window


class PickledTensor:
    """A tensor as the pickle makes it: `how` is the function's name, `args` its arguments, unchecked.

    `stated`: attributes were set on it afterwards, which can change what it is.
    """

    __slots__ = ("args", "how", "stated")

    def __init__(self, how: str, args: tuple[Any, ...]) -> None:
        self.how, self.args = how, args
        self.stated = False


class NumpyType:
    """A numpy dtype: `code` such as "f4", and whether its values are big-endian."""

    __slots__ = ("big", "code")

    def __init__(self, code: str) -> None:
        self.code, self.big = code, False


class NumpyArray:
    """A numpy array whose data lies in the pickle; `values` once they have come, or `problem`: why they cannot be."""

    __slots__ = ("problem", "values")

    def __init__(self) -> None:
        self.values: np.ndarray | None = None
        self.problem = "is a numpy array without data"
