"""Abuses of the header's JSON: doors that Python's own parser leaves open, and names that stand twice."""

from __future__ import annotations

from tests.attacks.header_cases import COMPACT, DATA, JSON, ONCE, Abuse, text
from tests.craft import craft

FIELDS = COMPACT[1:-1]


def extra(value: str) -> bytes:
    """A good tensor with a further field, which the format allows, of this value."""
    return text(f'{FIELDS},"x":{value}')


JSON_CASES = [
    Abuse("no JSON", craft(""), JSON),
    Abuse("nothing but blanks", craft("    "), JSON),
    Abuse("cut JSON", craft('{"a":'), JSON),
    Abuse("JSON and more", craft("{} {}"), JSON),
    Abuse("a NUL after the JSON", craft("{}\0"), JSON),
    Abuse("no UTF-8", craft(b'{"\xff":' + COMPACT.encode() + b"}", DATA), JSON),
    Abuse("surrogate encoded as UTF-8", craft('{"\ud800":@}'.replace("@", COMPACT), DATA), JSON),
    Abuse("byte order mark", craft('\ufeff{"a":@}'.replace("@", COMPACT), DATA), JSON),
    Abuse("raw control character in a key", craft('{"a\tb":@}'.replace("@", COMPACT), DATA), JSON),
    Abuse("lone surrogate in a key", craft('{"\\ud800":@}'.replace("@", COMPACT), DATA), JSON),
    Abuse("lone surrogate where nobody looks", extra('[{"y":"\\udc00"}]'), JSON),
    Abuse("NaN", extra("NaN"), JSON),
    Abuse("infinity", extra("[-Infinity]"), JSON),
    Abuse("a number out of range", extra("1e999"), JSON),
    Abuse("a leading zero", extra("01"), JSON),
    Abuse("single quotes", craft("{'a':1}"), JSON),
    Abuse("128 levels", extra("[" * 126 + "]" * 126), JSON),
    Abuse("128 levels of objects", extra('{"y":' * 126 + "1" + "}" * 126), JSON),
    Abuse("a million levels", extra("[" * 10**6 + "]" * 10**6), JSON),
    Abuse("a million levels, never closed", craft("[" * 10**6), JSON),
]

# Thousands of digits: Python refuses to convert them to an integer, with an error of another kind.
DIGITS = [
    Abuse(
        f"an integer of 5,000 digits as {place}",
        craft('{"a":{"dtype":"F32","shape":' + shape + ',"data_offsets":' + offsets + "}}", DATA),
        JSON,
    )
    for place, shape, offsets in [
        ("an extent", "[" + "9" * 5000 + "]", "[0,8]"),
        ("an offset", "[2]", "[0," + "9" * 5000 + "]"),
    ]
]

ONCE_CASES = [
    Abuse("a key twice, alike", craft('{"a":@,"a":@}'.replace("@", COMPACT), DATA), ONCE, reference_accepts=True),
    Abuse(
        "a key twice, of two shapes",
        craft('{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":@}'.replace("@", COMPACT), DATA),
        ONCE,
        reference_accepts=True,
    ),
    Abuse(
        "a key twice, once in escapes",
        craft('{"a":@,"\\u0061":@}'.replace("@", COMPACT), DATA),
        ONCE,
        reference_accepts=True,
    ),
    Abuse("a key twice, once not a tensor", craft('{"a":5,"a":@}'.replace("@", COMPACT), DATA), ONCE),
    Abuse("a field twice", text(FIELDS + ',"dtype":"F32"'), ONCE),
    Abuse("an unknown field twice", text(FIELDS + ',"x":1,"x":2'), ONCE, reference_accepts=True),
    Abuse("metadata twice", craft('{"__metadata__":{},"__metadata__":{}}'), ONCE),
    Abuse("a name of the metadata twice", craft('{"__metadata__":{"n":"1","n":"2"}}'), ONCE, reference_accepts=True),
]
