"""The header's exact reader: one tensor after the other, and the first problem by its name.

It accepts what the reference reader accepts: unknown fields, `[dtype, shape, data_offsets]` in place of an object, and
`{"F32": null}` in place of `"F32"` among it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np

from bridge._dtypes import DTYPES
from bridge._errors import CheckpointError
from bridge._text import plural, quote
from bridge.format.strict_json import is_list, is_object, kind, loads
from bridge.format.table import Columns, Form, element_count

ADVICE = "Fetch the file again, or save it with safetensors: it is damaged, or was written by a faulty tool"
_FIELDS = ("dtype", "shape", "data_offsets")


def parse_exact(raw: bytes | bytearray, data_nbytes: int, *, file: str) -> Columns:
    """The columns of a header.

    **Arguments:**

    - `raw`: the header's JSON.
    - `data_nbytes`: what follows it in the file.
    - `file`: the file's name, for messages.

    **Returns:** `Columns`. `CheckpointError` names the file, the tensor and the problem.
    """
    document = loads(raw, subject=f"{quote(file)}: the header", advice=ADVICE)
    if not is_object(document):
        raise CheckpointError(quote(file), f": the header must be a JSON object, got {kind(document)}", ADVICE)
    metadata = _metadata(document.pop("__metadata__", None), file)
    rows = [_HeaderEntry(file, key, entry) for key, entry in document.items()]
    _check_tiling(rows, data_nbytes, file=file, data_start=8 + len(raw))
    forms: dict[Form, int] = {}
    kinds = [forms.setdefault(Form(DTYPES[r.dtype].numpy, tuple(r.shape), r.stop - r.start), len(forms)) for r in rows]
    starts = np.array([r.start for r in rows], np.int64)
    return Columns(metadata, [r.key for r in rows], np.array(kinds, np.intp), list(forms), starts)


def _metadata(value: Any, file: str) -> dict[str, str]:
    if value is None:
        return {}
    if not is_object(value):
        raise CheckpointError(quote(file), f": __metadata__ must be an object of strings, got {kind(value)}", ADVICE)
    for name, text in value.items():
        if not isinstance(text, str):
            raise CheckpointError(
                quote(file), f": __metadata__ {quote(name)} must be a string, got {kind(text)}", ADVICE
            )
    return value


class _HeaderEntry:
    """One entry, checked but for its place among the others."""

    __slots__ = ("dtype", "file", "key", "shape", "start", "stop")

    def __init__(self, file: str, key: str, entry: Any) -> None:
        self.file, self.key = file, key
        dtype, shape, offsets = self._fields(entry)
        self.dtype = self._dtype(dtype)
        self.shape = self._ints("shape", shape)
        bounds = self._ints("data_offsets", offsets)
        if len(bounds) != 2:
            self.refuse(f"data_offsets must be two numbers, got {len(bounds)}")
        self.start, self.stop = bounds
        self._check_nbytes()

    def refuse(self, problem: str, advice: str = ADVICE) -> NoReturn:
        raise CheckpointError(quote(self.file), f": tensor {quote(self.key)}: {problem}", advice)

    def _fields(self, entry: Any) -> Sequence[Any]:
        if is_list(entry):
            if len(entry) != 3:
                self.refuse(f"must have dtype, shape and data_offsets, got a list of {len(entry)}")
            return entry
        if not is_object(entry):
            self.refuse(f"must be an object with dtype, shape and data_offsets, got {kind(entry)}")
        for field in _FIELDS:
            if field not in entry:
                self.refuse(f"has no {field}")
        return [entry[field] for field in _FIELDS]

    def _dtype(self, value: Any) -> str:
        if is_object(value) and len(value) == 1 and None in value.values():
            value = next(iter(value))
        if not isinstance(value, str):
            self.refuse(f"dtype must be a string, got {kind(value)}")
        if value not in DTYPES:
            advice = "Update bridge if safetensors has learnt it since; else save the tensor in one of these"
            self.refuse(f"unknown dtype {quote(value)}; known are {', '.join(DTYPES)}", advice)
        return value

    def _ints(self, field: str, value: Any) -> list[int]:
        if not is_list(value):
            self.refuse(f"{field} must be a list of integers, got {kind(value)}")
        for item in value:
            if type(item) is not int or item < 0:  # bool is an int to isinstance
                self.refuse(f"{field} must hold integers from 0 to 2**64 - 1, got {kind(item)}")
        return value

    def _check_nbytes(self) -> None:
        shape, given = shown(self.shape), self.stop - self.start
        try:
            count = element_count(self.shape)
        except OverflowError:
            self.refuse(f"shape {shape} has more elements than 64 bits can count")
        nbits = count * DTYPES[self.dtype].bits
        if nbits % 8:
            self.refuse(f"{self.dtype} of shape {shape} takes {nbits} bits, which is not a whole number of bytes")
        if given != nbits // 8:
            took = f"data_offsets [{self.start}, {self.stop}] span {given} bytes"
            self.refuse(f"{took}, {self.dtype} of shape {shape} takes {nbits // 8}")


def shown(shape: Sequence[int]) -> str:
    """A shape for messages, cut where it has absurdly many axes."""
    return str(tuple(shape)) if len(shape) <= 16 else f"({', '.join(map(str, shape[:16]))}, …: {len(shape)} axes)"


def _check_tiling(rows: Sequence[_HeaderEntry], data_nbytes: int, *, file: str, data_start: int) -> None:
    """The tensors must follow one another without hole or overlap, and end where the file ends."""
    stop = 0
    before: _HeaderEntry | None = None
    for row in sorted(rows, key=lambda r: (r.start, r.stop)):
        if row.start < stop and before is not None:
            row.refuse(f"its bytes [{row.start}, {row.stop}) overlap those of {quote(before.key)}, which end at {stop}")
        if row.start > stop:
            row.refuse(f"its bytes begin at {row.start}, the tensor before ends at {stop}: a hole")
        stop, before = row.stop, row
    if stop > data_nbytes:
        raise CheckpointError(
            quote(file),
            f"holds {data_start + data_nbytes:,} bytes, its header promises {data_start + stop:,}: it is cut off",
            "Fetch it again",
        )
    if stop < data_nbytes:
        extra = plural(data_nbytes - stop, "byte")
        raise CheckpointError(quote(file), f"holds {extra} after its last tensor, which no tensor owns", ADVICE)
