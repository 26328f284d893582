"""Abuses of the header's JSON: doors that Python's own parser leaves open, and names that stand twice."""

from __future__ import annotations

from tests.attacks.header_cases import COMPACT, DATA, JSON, ONCE, Abuse, json_text, text
from tests.craft import craft

FIELDS = COMPACT[1:-1]


def extra(value: str) -> bytes:
    """A good tensor with a further field, which the format allows, of this value."""
    return text(f'{FIELDS},"x":{value}')


JSON_CASES = [
    Abuse("no JSON", craft(""), JSON, json_text("is not JSON from line 1 column 1 on")),
    Abuse("nothing but blanks", craft("    "), JSON, json_text("is not JSON from line 1 column 5 on")),
    Abuse("cut JSON", craft('{"a":'), JSON, json_text("is not JSON from line 1 column 6 on")),
    Abuse("JSON and more", craft("{} {}"), JSON, json_text("is not JSON from line 1 column 4 on")),
    Abuse("a NUL after the JSON", craft("{}\0"), JSON, json_text("is not JSON from line 1 column 3 on")),
    Abuse(
        "no UTF-8",
        craft(b'{"\xff":' + COMPACT.encode() + b"}", DATA),
        JSON,
        json_text("is not UTF-8: byte 0xff at 2"),
    ),
    Abuse(
        "surrogate encoded as UTF-8",
        craft('{"\ud800":@}'.replace("@", COMPACT), DATA),
        JSON,
        json_text("is not UTF-8: byte 0xed at 2"),
    ),
    Abuse(
        "byte order mark",
        craft('\ufeff{"a":@}'.replace("@", COMPACT), DATA),
        JSON,
        json_text("is not JSON from line 1 column 1 on"),
    ),
    Abuse(
        "raw control character in a key",
        craft('{"a\tb":@}'.replace("@", COMPACT), DATA),
        JSON,
        json_text("is not JSON from line 1 column 4 on"),
    ),
    Abuse(
        "lone surrogate in a key",
        craft('{"\\ud800":@}'.replace("@", COMPACT), DATA),
        JSON,
        json_text("holds a lone surrogate, which is no character, in '\\ud800'"),
    ),
    Abuse(
        "lone surrogate where nobody looks",
        extra('[{"y":"\\udc00"}]'),
        JSON,
        json_text("holds a lone surrogate, which is no character, in '\\udc00'"),
    ),
    Abuse("NaN", extra("NaN"), JSON, json_text("holds NaN, which JSON does not know")),
    Abuse("infinity", extra("[-Infinity]"), JSON, json_text("holds -Infinity, which JSON does not know")),
    Abuse("a number out of range", extra("1e999"), JSON, json_text("holds the number '1e999', which is out of range")),
    Abuse("a leading zero", extra("01"), JSON, json_text("is not JSON from line 1 column 59 on")),
    Abuse("single quotes", craft("{'a':1}"), JSON, json_text("is not JSON from line 1 column 2 on")),
    Abuse("128 levels", extra("[" * 126 + "]" * 126), JSON, json_text("is nested deeper than 127 levels")),
    Abuse(
        "128 levels of objects",
        extra('{"y":' * 126 + "1" + "}" * 126),
        JSON,
        json_text("is nested deeper than 127 levels"),
    ),
    Abuse("a million levels", extra("[" * 10**6 + "]" * 10**6), JSON, json_text("is nested deeper than 127 levels")),
    Abuse("a million levels, never closed", craft("[" * 10**6), JSON, json_text("is nested deeper than 127 levels")),
]

# Thousands of digits: Python refuses to convert them to an integer, with an error of another kind.
DIGITS = [
    Abuse(
        f"an integer of 5,000 digits as {place}",
        craft('{"a":{"dtype":"F32","shape":' + shape + ',"data_offsets":' + offsets + "}}", DATA),
        JSON,
        json_text("holds the number '" + "9" * 180 + "…" + "9" * 100 + "', which is out of range"),
    )
    for place, shape, offsets in [
        ("an extent", "[" + "9" * 5000 + "]", "[0,8]"),
        ("an offset", "[2]", "[0," + "9" * 5000 + "]"),
    ]
]

ONCE_CASES = [
    Abuse(
        "a key twice, alike",
        craft('{"a":@,"a":@}'.replace("@", COMPACT), DATA),
        ONCE,
        json_text("holds the name 'a' twice in one object"),
        reference_accepts=True,
    ),
    Abuse(
        "a key twice, of two shapes",
        craft('{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":@}'.replace("@", COMPACT), DATA),
        ONCE,
        json_text("holds the name 'a' twice in one object"),
        reference_accepts=True,
    ),
    Abuse(
        "a key twice, once in escapes",
        craft('{"a":@,"\\u0061":@}'.replace("@", COMPACT), DATA),
        ONCE,
        json_text("holds the name 'a' twice in one object"),
        reference_accepts=True,
    ),
    Abuse(
        "a key twice, once not a tensor",
        craft('{"a":5,"a":@}'.replace("@", COMPACT), DATA),
        ONCE,
        json_text("holds the name 'a' twice in one object"),
    ),
    Abuse(
        "a field twice", text(FIELDS + ',"dtype":"F32"'), ONCE, json_text("holds the name 'dtype' twice in one object")
    ),
    Abuse(
        "an unknown field twice",
        text(FIELDS + ',"x":1,"x":2'),
        ONCE,
        json_text("holds the name 'x' twice in one object"),
        reference_accepts=True,
    ),
    Abuse(
        "metadata twice",
        craft('{"__metadata__":{},"__metadata__":{}}'),
        ONCE,
        json_text("holds the name '__metadata__' twice in one object"),
    ),
    Abuse(
        "a name of the metadata twice",
        craft('{"__metadata__":{"n":"1","n":"2"}}'),
        ONCE,
        json_text("holds the name 'n' twice in one object"),
        reference_accepts=True,
    ),
]
