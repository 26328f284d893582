"""A file's header: 8 bytes little-endian length, then JSON that names every tensor.

Bytes in, a checked `Header` out. Two readers share the work: a fast one, here, for headers spelled as every known
writer spells them, which says yes or "I cannot tell"; and an exact one (`exact.py`), which finds the problem, or that
the header is merely unusual.

The fast one splits the text into its tensors with one regular expression, five columns of strings, and numpy checks the
columns. That takes half the time of `json.loads`, which first makes a dictionary and two lists for each tensor.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from bridge._dtypes import DTYPES
from bridge._errors import CheckpointError
from bridge._text import plural, quote
from bridge.format.table import Columns, Form, Table, collector_off, element_count

MAX_HEADER_NBYTES = 100_000_000  # the reference's own limit, checked before anything is allocated
FIRST_READ_NBYTES = 16 * 1024
"""Holds most headers whole: one read, and over a network one request, which stores ask for when they open a file."""
_MANY_NBYTES = 1 << 20  # a smaller header makes too few objects for the collector to matter

_MAX_EXTENT = 2**64 - 1

# No escapes, hence no surrogates; no leading zeros; no field twice, and none more; no more digits than 63 bits hold.
_TENSOR = re.compile(
    r'"([^"\\\x00-\x1f]*+)": ?+\{"dtype": ?+"([A-Z0-9_]++", ?+"shape": ?+\[[0-9, ]*+)\], ?+'
    r'"data_offsets": ?+\[((?:0|[1-9][0-9]{0,17}+), ?+(?:0|[1-9][0-9]{0,17}+))\]\}'
)
_FORM = re.compile(r'([A-Z0-9_]+)", ?"shape": ?\[([0-9, ]*)')
# Compiled where a file has metadata.
_PAIR = r'"([^"\\\x00-\x1f]*+)": ?+"([^"\\\x00-\x1f]*+)"'
_METADATA = rf'\{{"__metadata__": ?+\{{((?:{_PAIR}(?:, ?+{_PAIR})*+)?+)\}}, ?+'


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


class Header:
    """What a file says about itself.

    - `metadata`: the `__metadata__` of the file, `{}` where it has none.
    - `tensors`: key to `TensorSpec`, in the header's own order; specs are made when asked for.
    - `data_start`: where the first tensor's bytes begin, in bytes from the file's start; 0 where the file is no
        safetensors file, and its tensors lie anywhere.
    - `skipped`: what stands among the tensors of such a file and is none, by name.
    """

    __slots__ = ("data_start", "metadata", "skipped", "tensors")

    def __init__(
        self, metadata: dict[str, str], tensors: Table, data_start: int, skipped: Mapping[str, str] | None = None
    ) -> None:
        self.metadata, self.tensors, self.data_start = metadata, tensors, data_start
        self.skipped: Mapping[str, str] = skipped or {}

    @property
    def is_safetensors(self) -> bool:
        """Whether it stands at the front of the file, as JSON."""
        return self.data_start > 0


def read_first(source: Readable) -> bytearray:
    """The first bytes of a file: most headers are whole among them."""
    first = bytearray(min(source.nbytes, FIRST_READ_NBYTES))
    source.readinto([memoryview(first)], 0)
    return first


def read_header(source: Readable, file: str | None = None, *, first: bytearray | None = None) -> Header:
    """Read and check the header of one safetensors file.

    **Arguments:**

    - `source`: the file; `source.name` is what messages call it.
    - `file`: what the specs call it, by default `source.name`.
    - `first`: what `read_first` has read of it already.

    **Returns:** a `Header` whose tensors tile the file's data without hole or overlap. `CheckpointError` for whatever
    the reference reader refuses, and for JSON names that stand twice.
    """
    raw = _read_json(source, read_first(source) if first is None else first)
    data_start = 8 + len(raw)
    data_nbytes = source.nbytes - data_start
    with collector_off(len(raw) > _MANY_NBYTES):
        parsed = parse_fast(raw, data_nbytes) or _exactly(raw, data_nbytes, source.name)
    table = Table.of(parsed, file=source.name if file is None else file, data_start=data_start)
    return Header(parsed.metadata, table, data_start)


def _exactly(raw: bytearray, data_nbytes: int, file: str) -> Columns:
    from bridge.format.exact import parse_exact  # headers that no known writer wrote, and damaged ones

    return parse_exact(raw, data_nbytes, file=file)


def _read_json(source: Readable, first: bytearray) -> bytearray:
    """The header's JSON text, by one more read at most."""
    name, nbytes = quote(source.name), source.nbytes
    stop = 8 + int.from_bytes(first[:8], "little")
    if nbytes < 8 or stop - 8 > MAX_HEADER_NBYTES or stop > nbytes or (stop == 8 and len(first) > 8 and not any(first)):
        from bridge.format.exact import ADVICE  # damaged files alone
        from bridge.format.signature import describe

        other = describe(bytes(first))
        if other is not None:
            raise CheckpointError(name, f"is {other[0]}", other[1])
        if nbytes < 8:
            held = plural(nbytes, "byte")
            raise CheckpointError(
                name, f"holds {held}, a safetensors file at least 8: it is empty or cut off", "Fetch it again"
            )
        if stop - 8 > MAX_HEADER_NBYTES:
            claim = f"claims a header of {stop - 8:,} bytes; the format allows {MAX_HEADER_NBYTES:,}"
            if stop <= nbytes:
                raise CheckpointError(name, claim, "Save its tensors to several files")
            raise CheckpointError(name, claim, ADVICE)
        raise CheckpointError(
            name, f"holds {nbytes:,} bytes, its header alone promises {stop:,}: it is cut off", "Fetch it again"
        )
    raw = bytearray(stop - 8)
    have = min(stop, len(first)) - 8
    raw[:have] = first[8 : 8 + have]
    if have < len(raw):
        source.readinto([memoryview(raw)[have:]], 8 + have)
    return raw


def parse_fast(raw: bytes | bytearray, data_nbytes: int) -> Columns | None:
    """The columns of a header that is beyond doubt, else None: `parse_exact` then has the word.

    **Arguments:**

    - `raw`: the header's JSON.
    - `data_nbytes`: what follows it in the file.
    """
    try:
        return _columns(raw.decode("utf-8"), data_nbytes)
    except (ValueError, KeyError, OverflowError):
        return None  # whatever it was, parse_exact finds and names it


def _columns(text: str, data_nbytes: int) -> Columns | None:
    # `split` also hands out what lies between the matches. Where that is the braces and the commas and nothing else,
    # the text is valid JSON, and each tensor in it is one match.
    head, *rest = _TENSOR.split(text)
    keys, spellings, bounds, between = rest[0::4], rest[1::4], rest[2::4], rest[3::4]
    if not keys or between.pop().rstrip(" \t\n\r") != "}" or not {",", ", "}.issuperset(between):
        return None
    metadata = _metadata(head)
    if metadata is None or "__metadata__" in keys or len(set(keys)) != len(keys):
        return None
    numbers = {spelling: number for number, spelling in enumerate(dict.fromkeys(spellings))}
    forms = list(map(_form, numbers))
    kinds = np.fromiter(map(numbers.__getitem__, spellings), np.intp, len(keys))
    # One text of all numbers: numpy parses it in a third of the time that int() takes for each.
    starts, stops = np.fromstring(",".join(bounds), np.int64, sep=",").reshape(-1, 2).T
    if not _tiles(starts, stops, np.array([form.nbytes for form in forms], np.int64)[kinds], data_nbytes):
        return None
    return Columns(metadata, keys, kinds, forms, np.ascontiguousarray(starts))


def _metadata(head: str) -> dict[str, str] | None:
    """The metadata before the first tensor; None where `head` is not the start of an object that holds only that."""
    if head == "{":
        return {}
    simple = re.fullmatch(_METADATA, head)
    if simple is not None:
        pairs = re.findall(_PAIR, simple[1])
        metadata = dict(pairs)
        return metadata if len(metadata) == len(pairs) else None
    return _escaped_metadata(head)


def _escaped_metadata(head: str) -> dict[str, str] | None:
    """The same where texts hold quotes or other escapes, as those of converted files do."""
    from bridge.format.strict_json import is_object, loads  # the metadata of few files need it

    body = head.removesuffix(" ")
    if not body.endswith(","):
        return None
    document = loads((body[:-1] + "}").encode(), subject="", advice="")
    metadata = document.pop("__metadata__", None)
    if document or not is_object(metadata) or set(map(type, metadata.values())) - {str}:
        return None
    return metadata


def _form(spelling: str) -> Form:
    """Parse what few tensors do not share with others. ValueError, KeyError or OverflowError: it cannot be told."""
    found = _FORM.fullmatch(spelling)
    if found is None:
        raise ValueError(spelling)
    dtype, extents = found.groups()
    texts = extents.replace(", ", ",").split(",") if extents else []
    shape = tuple(map(int, texts))
    if list(map(str, shape)) != texts:  # leading zeros, or spaces
        raise ValueError(extents)
    nbytes, odd_nbits = divmod(element_count(shape) * DTYPES[dtype].bits, 8)
    if odd_nbits or max(shape, default=0) > _MAX_EXTENT:
        raise ValueError(extents)
    return Form(DTYPES[dtype].numpy, shape, nbytes)


def _tiles(starts: np.ndarray, stops: np.ndarray, nbytes: np.ndarray, data_nbytes: int) -> bool:
    """Whether the tensors, in order of their offsets, cover the data exactly, and each has the length that it needs."""
    if not np.array_equal(starts[1:], stops[:-1]):
        order = np.lexsort((stops, starts))
        starts, stops, nbytes = starts[order], stops[order], nbytes[order]
    return bool(
        starts[0] == 0
        and stops[-1] == data_nbytes
        and np.array_equal(starts[1:], stops[:-1])
        and np.array_equal(stops - starts, nbytes)
    )
