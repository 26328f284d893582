"""A file's header: 8 bytes little-endian length, then JSON that names every tensor.

Bytes in, a checked `Header` out. Two readers share the work: a fast one that only says yes or "I cannot tell", and an
exact one that finds the problem, or that the header is merely unusual.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from bridge._errors import CheckpointError
from bridge._text import plural, quote
from bridge._values import Record
from bridge.format.collector import collector_off
from bridge.format.fast import parse_fast
from bridge.format.table import Columns, Table

MAX_HEADER_NBYTES = 100_000_000  # the reference's own limit, checked before anything is allocated
FIRST_READ_NBYTES = 16 * 1024
"""Holds most headers whole: one read, and over a network one request, which stores ask for when they open a file."""
_MANY_NBYTES = 1 << 20  # a smaller header makes too few objects for the collector to matter


class Readable(Protocol):
    """What a header is read from; `bridge.source.bytes.ByteSource` is one."""

    @property
    def name(self) -> str:
        """What messages call it."""
        ...

    @property
    def nbytes(self) -> int:
        """Its length."""
        ...

    def readinto(self, buffers: Sequence[memoryview], offset: int) -> None:
        """Fill all `buffers` from byte `offset` on, or raise."""
        ...


class Header(Record):
    """What a file says about itself.

    - `metadata`: the `__metadata__` of the file, `{}` where it has none.
    - `tensors`: key to `TensorSpec`, in the header's own order; specs are made when asked for.
    - `data_start`: where the first tensor's bytes begin, in bytes from the file's start.
    """

    metadata: dict[str, str]
    tensors: Table
    data_start: int


def read_header(source: Readable, file: str | None = None) -> Header:
    """Read and check the header of one safetensors file.

    **Arguments:**

    - `source`: the file; `source.name` is what messages call it.
    - `file`: what the specs call it, by default `source.name`.

    **Returns:** a `Header` whose tensors tile the file's data without hole or overlap. `CheckpointError` for whatever
    the reference reader refuses, and for JSON names that stand twice.
    """
    raw = _read_json(source)
    data_start = 8 + len(raw)
    data_nbytes = source.nbytes - data_start
    with collector_off(len(raw) > _MANY_NBYTES):
        parsed = parse_fast(raw, data_nbytes) or _exactly(raw, data_nbytes, source.name)
    table = Table.of(parsed, file=source.name if file is None else file, data_start=data_start)
    return Header(parsed.metadata, table, data_start)


def _exactly(raw: bytearray, data_nbytes: int, file: str) -> Columns:
    from bridge.format.exact import parse_exact  # few headers need it

    return parse_exact(raw, data_nbytes, file=file)


def _read_json(source: Readable) -> bytearray:
    """The header's JSON text, by one read or two."""
    name, nbytes = quote(source.name), source.nbytes
    first = bytearray(min(nbytes, FIRST_READ_NBYTES))
    source.readinto([memoryview(first)], 0)
    stop = 8 + int.from_bytes(first[:8], "little")
    if nbytes < 8 or stop - 8 > MAX_HEADER_NBYTES or stop > nbytes:
        from bridge.format.exact import ADVICE
        from bridge.format.signature import describe

        other = describe(bytes(first))
        if other is not None:
            raise CheckpointError(f"{name} is {other}")
        if nbytes < 8:
            held = plural(nbytes, "byte")
            raise CheckpointError(
                f"{name} holds {held}, a safetensors file at least 8. It is empty or cut off: fetch it again."
            )
        if stop - 8 > MAX_HEADER_NBYTES:
            raise CheckpointError(
                f"{name} claims a header of {stop - 8:,} bytes; the format allows {MAX_HEADER_NBYTES:,}. {ADVICE}"
            )
        raise CheckpointError(
            f"{name} holds {nbytes:,} bytes, its header alone promises {stop:,}. It is cut off: fetch it again."
        )
    raw = bytearray(stop - 8)
    have = min(stop, len(first)) - 8
    raw[:have] = first[8 : 8 + have]
    if have < len(raw):
        source.readinto([memoryview(raw)[have:]], 8 + have)
    return raw
