"""Abuses of the header: what is in the file, and which rule stops it; `tests/errors/texts.txt` has the words."""

from __future__ import annotations

import json
import struct
from typing import Any, NamedTuple

from tests.craft import craft, entry


class Abuse(NamedTuple):
    name: str
    content: bytes
    rule: str  # the rule of the format, or of ours, that the file breaks
    reference_accepts: bool = False


DATA = bytes(8)
F32 = entry("F32", [2], 0, 8)
COMPACT = json.dumps(F32, separators=(",", ":"))


def one(**changed: Any) -> bytes:
    return craft({"a": F32 | changed}, DATA)


def text(fields: str) -> bytes:
    return craft('{"a":{@}}'.replace("@", fields), DATA)


LENGTH = "the length of the header lies within the file, and within 100 MB"
TILE = "tensors cover the data without hole or overlap"
TYPES = "dtype is a name, shape and data_offsets are lists of integers"
JSON = "the header is JSON"
ONCE = "no name stands twice in one object"
EXACT = "data_offsets span what dtype and shape need"

LENGTHS = [
    Abuse("empty file", b"", LENGTH),
    Abuse("seven bytes", bytes(7), LENGTH),
    Abuse("header of 2**64 - 1 bytes", b"\xff" * 8 + b"{}", LENGTH),
    Abuse("header of 100 MB and a byte", struct.pack("<Q", 100_000_001) + b"{}", LENGTH),
    Abuse("header beyond the end of the file", struct.pack("<Q", 3) + b"{}", LENGTH),
    Abuse("data cut off", craft({"a": F32}, DATA[:5]), TILE),
    Abuse("bytes after the last tensor", craft({"a": F32}, DATA + b"hidden"), TILE),
    Abuse("data and no tensor", craft("{}", b"x"), TILE),
]

TILING = [
    Abuse("aliased tensors", craft({"a": F32, "b": F32}, DATA), TILE),
    Abuse("overlapping tensors", craft({"a": F32, "b": entry("F32", [2], 4, 12)}, bytes(12)), TILE),
    Abuse("a hole", craft({"a": F32, "b": entry("F32", [1], 12, 16)}, bytes(16)), TILE),
    Abuse("a hole at the start", craft({"a": entry("F32", [2], 4, 12)}, bytes(12)), TILE),
    Abuse("an empty tensor inside another", craft({"a": F32, "b": entry("F32", [0], 4, 4)}, DATA), TILE),
    Abuse("far out of range", craft({"a": entry("F32", [2], 2**63, 2**63 + 8)}, DATA), TILE),
    Abuse("backwards", one(data_offsets=[8, 0]), EXACT),
    Abuse("too short for its shape", one(shape=[3]), EXACT),
    Abuse("product of the shape overflows to its size", one(shape=[2**32, 2**32, 2]), EXACT),
    Abuse("overflow hidden by a zero", craft({"a": entry("F32", [2**40, 2**40, 0], 0, 0)}), EXACT),
    Abuse("half a byte", craft({"a": entry("F4", [3], 0, 1)}, b"x"), EXACT),
]

TYPE_CASES = [
    Abuse("header is a list", craft("[]"), TYPES),
    Abuse("header is null", craft("null"), TYPES),
    Abuse("tensor is a number", craft('{"a":5}'), TYPES),
    Abuse("tensor is null", craft('{"a":null}'), TYPES),
    Abuse("tensor is a list of two", craft('{"a":["F32",[2]]}', DATA), TYPES),
    Abuse("no dtype", text('"shape":[2],"data_offsets":[0,8]'), TYPES),
    Abuse("no shape", text('"dtype":"F32","data_offsets":[0,8]'), TYPES),
    Abuse("no data_offsets", text('"dtype":"F32","shape":[2]'), TYPES),
    Abuse("dtype is a number", one(dtype=32), TYPES),
    Abuse("dtype is a list", one(dtype=["F32"]), TYPES),
    Abuse("unknown dtype", one(dtype="F7"), TYPES),
    Abuse("shape is a number", one(shape=2), TYPES),
    Abuse("shape is an object", one(shape={}), TYPES),
    Abuse("shape of floats", one(shape=[2.0]), TYPES),
    Abuse("shape of booleans", one(shape=[True, 2]), TYPES),
    Abuse("negative shape", one(shape=[-1, -2]), TYPES),
    Abuse("minus zero", text('"dtype":"F32","shape":[2],"data_offsets":[-0,8]'), TYPES),
    Abuse("an exponent", text('"dtype":"F32","shape":[2],"data_offsets":[0,8e0]'), TYPES),
    Abuse("extent of 2**64", craft({"a": entry("F32", [0, 2**64], 0, 0)}), TYPES),
    Abuse("one offset", one(data_offsets=[8]), TYPES),
    Abuse("three offsets", one(data_offsets=[0, 8, 8]), TYPES),
    Abuse("offsets are a string", one(data_offsets="08"), TYPES),
    Abuse("metadata is a list", craft('{"__metadata__":[]}'), TYPES),
    Abuse("metadata of numbers", craft('{"__metadata__":{"n":1}}'), TYPES),
    Abuse("metadata that is a tensor", craft({"__metadata__": F32}, DATA), TYPES),
]
