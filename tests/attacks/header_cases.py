"""Abuses of the header: what is in the file, which rule stops it, and the words that do."""

from __future__ import annotations

import json
import struct
from typing import Any, NamedTuple

from tests.craft import craft, entry


class Abuse(NamedTuple):
    name: str
    content: bytes
    rule: str  # the rule of the format, or of ours, that the file breaks
    message: str  # after `'x.safetensors'`, verbatim
    reference_accepts: bool = False


DAMAGED = "The file is damaged or was written by a faulty tool: fetch it again, or save it with safetensors."
DATA = bytes(8)
F32 = entry("F32", [2], 0, 8)
COMPACT = json.dumps(F32, separators=(",", ":"))


def one(**changed: Any) -> bytes:
    return craft({"a": F32 | changed}, DATA)


def text(fields: str) -> bytes:
    return craft('{"a":{@}}'.replace("@", fields), DATA)


def at(key: str, problem: str) -> str:
    return f": tensor '{key}': {problem}. {DAMAGED}"


def json_text(problem: str) -> str:
    return f": the header {problem}. {DAMAGED}"


LENGTH = "the length of the header lies within the file, and within 100 MB"
TILE = "tensors cover the data without hole or overlap"
TYPES = "dtype is a name, shape and data_offsets are lists of integers"
JSON = "the header is JSON"
ONCE = "no name stands twice in one object"
EXACT = "data_offsets span what dtype and shape need"

LENGTHS = [
    Abuse(
        "empty file",
        b"",
        LENGTH,
        " holds 0 bytes, a safetensors file at least 8. It is empty or cut off: fetch it again.",
    ),
    Abuse(
        "seven bytes",
        bytes(7),
        LENGTH,
        " holds 7 bytes, a safetensors file at least 8. It is empty or cut off: fetch it again.",
    ),
    Abuse(
        "header of 2**64 - 1 bytes",
        b"\xff" * 8 + b"{}",
        LENGTH,
        f" claims a header of 18,446,744,073,709,551,615 bytes; the format allows 100,000,000. {DAMAGED}",
    ),
    Abuse(
        "header of 100 MB and a byte",
        struct.pack("<Q", 100_000_001) + b"{}",
        LENGTH,
        f" claims a header of 100,000,001 bytes; the format allows 100,000,000. {DAMAGED}",
    ),
    Abuse(
        "header beyond the end of the file",
        struct.pack("<Q", 3) + b"{}",
        LENGTH,
        " holds 10 bytes, its header alone promises 11. It is cut off: fetch it again.",
    ),
    Abuse(
        "data cut off",
        craft({"a": F32}, DATA[:5]),
        TILE,
        " holds 67 bytes, its header promises 70. It is cut off: fetch it again.",
    ),
    Abuse(
        "bytes after the last tensor",
        craft({"a": F32}, DATA + b"hidden"),
        TILE,
        f" holds 6 bytes after its last tensor, which no tensor owns. {DAMAGED}",
    ),
    Abuse(
        "data and no tensor",
        craft("{}", b"x"),
        TILE,
        f" holds 1 byte after its last tensor, which no tensor owns. {DAMAGED}",
    ),
]

TILING = [
    Abuse(
        "aliased tensors",
        craft({"a": F32, "b": F32}, DATA),
        TILE,
        at("b", "its bytes [0, 8) overlap those of 'a', which end at 8"),
    ),
    Abuse(
        "overlapping tensors",
        craft({"a": F32, "b": entry("F32", [2], 4, 12)}, bytes(12)),
        TILE,
        at("b", "its bytes [4, 12) overlap those of 'a', which end at 8"),
    ),
    Abuse(
        "a hole",
        craft({"a": F32, "b": entry("F32", [1], 12, 16)}, bytes(16)),
        TILE,
        at("b", "its bytes begin at 12, the tensor before ends at 8: a hole"),
    ),
    Abuse(
        "a hole at the start",
        craft({"a": entry("F32", [2], 4, 12)}, bytes(12)),
        TILE,
        at("a", "its bytes begin at 4, the tensor before ends at 0: a hole"),
    ),
    Abuse(
        "an empty tensor inside another",
        craft({"a": F32, "b": entry("F32", [0], 4, 4)}, DATA),
        TILE,
        at("b", "its bytes [4, 4) overlap those of 'a', which end at 8"),
    ),
    Abuse(
        "far out of range",
        craft({"a": entry("F32", [2], 2**63, 2**63 + 8)}, DATA),
        TILE,
        at("a", "its bytes begin at 9223372036854775808, the tensor before ends at 0: a hole"),
    ),
    Abuse(
        "backwards",
        one(data_offsets=[8, 0]),
        EXACT,
        at("a", "data_offsets [8, 0] span -8 bytes, F32 of shape (2,) takes 8"),
    ),
    Abuse(
        "too short for its shape",
        one(shape=[3]),
        EXACT,
        at("a", "data_offsets [0, 8] span 8 bytes, F32 of shape (3,) takes 12"),
    ),
    Abuse(
        "product of the shape overflows to its size",
        one(shape=[2**32, 2**32, 2]),
        EXACT,
        at("a", "shape (4294967296, 4294967296, 2) has more elements than 64 bits can count"),
    ),
    Abuse(
        "overflow hidden by a zero",
        craft({"a": entry("F32", [2**40, 2**40, 0], 0, 0)}),
        EXACT,
        at("a", "shape (1099511627776, 1099511627776, 0) has more elements than 64 bits can count"),
    ),
    Abuse(
        "half a byte",
        craft({"a": entry("F4", [3], 0, 1)}, b"x"),
        EXACT,
        at("a", "F4 of shape (3,) takes 12 bits, which is no whole number of bytes"),
    ),
]

TYPE_CASES = [
    Abuse("header is a list", craft("[]"), TYPES, f": the header must be a JSON object, got a list. {DAMAGED}"),
    Abuse("header is null", craft("null"), TYPES, f": the header must be a JSON object, got null. {DAMAGED}"),
    Abuse(
        "tensor is a number",
        craft('{"a":5}'),
        TYPES,
        at("a", "must be an object with dtype, shape and data_offsets, got the number 5"),
    ),
    Abuse(
        "tensor is null",
        craft('{"a":null}'),
        TYPES,
        at("a", "must be an object with dtype, shape and data_offsets, got null"),
    ),
    Abuse(
        "tensor is a list of two",
        craft('{"a":["F32",[2]]}', DATA),
        TYPES,
        at("a", "must have dtype, shape and data_offsets, got a list of 2"),
    ),
    Abuse("no dtype", text('"shape":[2],"data_offsets":[0,8]'), TYPES, at("a", "has no dtype")),
    Abuse("no shape", text('"dtype":"F32","data_offsets":[0,8]'), TYPES, at("a", "has no shape")),
    Abuse("no data_offsets", text('"dtype":"F32","shape":[2]'), TYPES, at("a", "has no data_offsets")),
    Abuse("dtype is a number", one(dtype=32), TYPES, at("a", "dtype must be a string, got the number 32")),
    Abuse("dtype is a list", one(dtype=["F32"]), TYPES, at("a", "dtype must be a string, got a list")),
    Abuse(
        "unknown dtype",
        one(dtype="F7"),
        TYPES,
        ": tensor 'a': unknown dtype 'F7'; known are BOOL, F4, F6_E2M3, F6_E3M2, U8, I8, F8_E5M2, F8_E4M3, F8_E8M0, "
        "F8_E4M3FNUZ, F8_E5M2FNUZ, I16, U16, F16, BF16, I32, U32, F32, C64, F64, I64, U64. "
        "Update bridge if safetensors has learnt it since; else save the tensor in one of these.",
    ),
    Abuse("shape is a number", one(shape=2), TYPES, at("a", "shape must be a list of integers, got the number 2")),
    Abuse("shape is an object", one(shape={}), TYPES, at("a", "shape must be a list of integers, got an object")),
    Abuse(
        "shape of floats",
        one(shape=[2.0]),
        TYPES,
        at("a", "shape must hold integers from 0 to 2**64 - 1, got the number 2.0"),
    ),
    Abuse(
        "shape of booleans",
        one(shape=[True, 2]),
        TYPES,
        at("a", "shape must hold integers from 0 to 2**64 - 1, got true"),
    ),
    Abuse(
        "negative shape",
        one(shape=[-1, -2]),
        TYPES,
        at("a", "shape must hold integers from 0 to 2**64 - 1, got the number -1"),
    ),
    Abuse(
        "minus zero",
        text('"dtype":"F32","shape":[2],"data_offsets":[-0,8]'),
        TYPES,
        at("a", "data_offsets must hold integers from 0 to 2**64 - 1, got the number -0.0"),
    ),
    Abuse(
        "an exponent",
        text('"dtype":"F32","shape":[2],"data_offsets":[0,8e0]'),
        TYPES,
        at("a", "data_offsets must hold integers from 0 to 2**64 - 1, got the number 8.0"),
    ),
    Abuse(
        "extent of 2**64",
        craft({"a": entry("F32", [0, 2**64], 0, 0)}),
        TYPES,
        at("a", "shape must hold integers from 0 to 2**64 - 1, got the number 1.8446744073709552e+19"),
    ),
    Abuse("one offset", one(data_offsets=[8]), TYPES, at("a", "data_offsets must be two numbers, got 1")),
    Abuse("three offsets", one(data_offsets=[0, 8, 8]), TYPES, at("a", "data_offsets must be two numbers, got 3")),
    Abuse(
        "offsets are a string",
        one(data_offsets="08"),
        TYPES,
        at("a", "data_offsets must be a list of integers, got the string '08'"),
    ),
    Abuse(
        "metadata is a list",
        craft('{"__metadata__":[]}'),
        TYPES,
        f": __metadata__ must be an object of strings, got a list. {DAMAGED}",
    ),
    Abuse(
        "metadata of numbers",
        craft('{"__metadata__":{"n":1}}'),
        TYPES,
        f": __metadata__ 'n' must be a string, got the number 1. {DAMAGED}",
    ),
    Abuse(
        "metadata that is a tensor",
        craft({"__metadata__": F32}, DATA),
        TYPES,
        f": __metadata__ 'shape' must be a string, got a list. {DAMAGED}",
    ),
]
