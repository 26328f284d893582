"""Which parameter of the recorded model a key is: found by values, because modules need not be called as keys are.

transformers saves names that its modules do not have, and fuses in memory what files have apart. So checksums decide,
of values rounded to bfloat16, which are the same where a file is float32 and the run was not. Names decide between
equals.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import ml_dtypes
import numpy as np

from bridge._text import quote, template
from bridge.checking.recording import Param, Recording
from bridge.mapping.arrays import Shape
from bridge.mapping.indexmap import IndexMap

_BF16 = np.dtype(ml_dtypes.bfloat16)
_MANY = 200  # equal parameters: beyond that only those with the same numbers in their names are looked at


class KeyPlace(NamedTuple):
    """Where a key's values are in memory: a parameter; or rows of one of its matrices, from `row` on."""

    param: str
    matrix: int | None = None
    row: int = 0


class Split(NamedTuple):
    """A parameter that is the rows of a key from `start` on, `height` of them."""

    param: str
    start: int
    height: int


class Match(NamedTuple):
    """Where each key is, and why others are nowhere, or were found by their names only: their values differ. `splits`
    are the parameters of keys that memory has in several.
    """

    places: Mapping[str, KeyPlace]
    reasons: Mapping[str, str]
    splits: Mapping[str, Sequence[Split]] = {}

    def place(self, key: str, index_map: IndexMap) -> KeyPlace | None:
        """Where the elements of a key are that a map takes."""
        if key in self.places:
            return self.places[key]
        first = index_map.key_start[0] if index_map.key_start else 0
        last = first + sum((loop.extent - 1) * loop.key_step for loop in index_map.loops if loop.key_axis == 0)
        for one in self.splits.get(key, ()):
            if one.start <= min(first, last) and max(first, last) < one.start + one.height:
                return KeyPlace(one.param, None, -one.start)
        return None


def match(recording: Recording, values: Mapping[str, np.ndarray], inexact: Iterable[str] = ()) -> Match:
    """Find keys in the recorded model.

    **Arguments:**

    - `values`: the tensor of each key.
    - `inexact`: keys whose values are not quite those that were loaded: nothing is said where they differ.
    """
    inexact = set(inexact)
    finder = _Finder(recording.params)
    places: dict[str, KeyPlace] = {}
    reasons: dict[str, str] = {}
    _by_values(finder, values, places)
    if any(param.dtype == np.float16 for param in recording.params.values()):
        # What was stored in another dtype is other values in float16.
        left = {key: value for key, value in values.items() if key not in places and value.dtype != np.float16}
        _by_values(finder, {key: _halved(value) for key, value in left.items()}, places)
    splits = {key: found for key, value in values.items() if key not in places and (found := finder.split(value))}
    taken = {place.param for place in places.values()} | {one.param for found in splits.values() for one in found}
    left = {name: param for name, param in recording.params.items() if name not in taken}
    for key, value in values.items():
        if key in places or key in splits:
            continue
        alike = [
            name for name, param in left.items() if param.shape == value.shape and likeness(key, name)[:2] > (True, 0)
        ]
        if key in left and left[key].shape == value.shape:
            places[key] = KeyPlace(key)
        elif alike:
            places[key] = KeyPlace(max(alike, key=lambda name: likeness(key, name)))
        elif key in inexact and (only := _only_alike(key, left, value.shape)) is not None:
            places[key] = KeyPlace(only)
        else:
            reasons[key] = f"no parameter of the recorded model has the values of '{key}'"
            continue
        if key not in inexact:
            reasons[key] = f"the recorded model has other values in {quote(places[key].param)} than '{key}' has"
    return Match(places, reasons, splits)


def _by_values(finder: _Finder, values: Mapping[str, np.ndarray], places: dict[str, KeyPlace]) -> None:
    """Put the places of keys whose very values the recorded model has beside those that are known."""
    groups: dict[tuple[int, Shape], list[str]] = {}
    for key, value in values.items():
        groups.setdefault((checksum(value), value.shape), []).append(key)
    for (crc, shape), keys in groups.items():
        found = finder.equal.get((crc, shape), [])
        if found:
            places |= _assigned(keys, found)
            continue
        for key in keys:
            place = finder.fused(key, values[key])
            if place is not None:
                places[key] = place


def _halved(value: np.ndarray) -> np.ndarray:
    """Floats as float16 has them."""
    with np.errstate(over="ignore", invalid="ignore"):
        return value.astype(np.float16) if value.dtype.kind == "f" or value.dtype == _BF16 else value


def checksum(value: np.ndarray) -> int:
    """As the recorder takes it: of floats, rounded to bfloat16."""
    return zlib.crc32(np.ascontiguousarray(_rounded(value)).tobytes())


def _rounded(value: np.ndarray) -> np.ndarray:
    is_float = value.dtype.kind == "f" or value.dtype == _BF16
    with np.errstate(over="ignore", invalid="ignore"):
        return value.astype(_BF16) if is_float else value


class _Finder:
    """Parameters by their checksums, and by those of their rows."""

    def __init__(self, params: Mapping[str, Param]) -> None:
        self.params = params
        self.equal: dict[tuple[int, Shape], list[str]] = {}
        self.rows: dict[tuple[int, int], list[KeyPlace]] = {}
        for name, param in params.items():
            self.equal.setdefault((param.crc, param.shape), []).append(name)
            for (matrix, row), crc in param.rows.items():
                self.rows.setdefault((crc, param.shape[-1]), []).append(KeyPlace(name, matrix, row))

    def fused(self, key: str, value: np.ndarray) -> KeyPlace | None:
        """The rows of a larger parameter that are a key's, which has one matrix."""
        if value.ndim < 2 or 0 in value.shape:
            return None
        matrix = value.reshape(-1, value.shape[-1])
        height = len(matrix)
        found = [
            place
            for place in self.rows.get((checksum(matrix[0]), matrix.shape[1]), [])
            if place.row + height <= self.params[place.param].shape[-2]
        ]
        # A row that both have in the middle settles it, where the parameter has one.
        for place in found:
            rows = self.params[place.param].rows
            inside = [row for n, row in rows if n == place.matrix and 0 < row - place.row < height]
            if any(rows[place.matrix or 0, row] != checksum(matrix[row - place.row]) for row in inside):
                found = [one for one in found if one is not place]
        return max(found, key=lambda place: likeness(key, place.param), default=None)

    def split(self, value: np.ndarray) -> Sequence[Split]:
        """The parameters whose rows a key joins, all of it: projections that a checkpoint has in one tensor."""
        if value.ndim not in (1, 2) or not value.size:
            return ()
        heights = {shape[0] for _, shape in self.equal if len(shape) == value.ndim and shape[1:] == value.shape[1:]}
        found: list[Split] = []
        start = 0
        while start < len(value):
            for height in sorted(heights, reverse=True):
                part = value[start : start + height]
                names = self.equal.get((checksum(part), part.shape)) if height < len(value) else None
                if names and len(part) == height:
                    found.append(Split(names[0], start, height))
                    start += height
                    break
            else:
                return ()
        return found


def likeness(key: str, param: str) -> tuple[bool, int, int]:
    """How alike two names are: the same numbers, segments that end alike, segments that both have."""
    ends = 0
    mine, theirs = key.split("."), param.split(".")
    for a, b in zip(reversed(mine), reversed(theirs), strict=False):
        if a != b:
            break
        ends += 1
    return template(key)[1] == template(param)[1], ends, len({*mine} & {*theirs})


def _only_alike(key: str, params: Mapping[str, Param], shape: Shape) -> str | None:
    """The one parameter of a shape whose name has the same numbers and most words in common; `None` if two have."""
    words = {name: likeness(key, name) for name, param in params.items() if param.shape == shape}
    most = max((found for found in words.values() if found[0] and found[2] > 0), default=None)
    found = [name for name, likely in words.items() if likely == most]
    return found[0] if len(found) == 1 else None


def _assigned(keys: Sequence[str], params: Sequence[str]) -> dict[str, KeyPlace]:
    """Equal keys to equal parameters, each to one, those whose names are most alike first."""
    if len(keys) == len(params) == 1:
        return {keys[0]: KeyPlace(params[0])}
    if len(keys) * len(params) > _MANY * _MANY:
        by_numbers: dict[tuple[int, ...], tuple[list[str], list[str]]] = {}
        for side, names in enumerate((keys, params)):
            for name in names:
                by_numbers.setdefault(template(name)[1], ([], []))[side].append(name)
        pairs = [pair for pair in by_numbers.values() if len(pair[0]) * len(pair[1]) <= _MANY * _MANY]
        return {key: place for mine, theirs in pairs for key, place in _assigned(mine, theirs).items()}
    scored = sorted(((likeness(key, param), key, param) for key in keys for param in params), reverse=True)
    found: dict[str, KeyPlace] = {}
    taken: set[str] = set()
    for _, key, param in scored:
        if key not in found and param not in taken:
            found[key] = KeyPlace(param)
            taken.add(param)
    # One parameter that several keys are: what is tied in memory.
    return {key: found.get(key) or KeyPlace(next(p for _, k, p in scored if k == key)) for key in keys}
