"""Headers that are nearly right: a good one, then a few changes to its JSON.

Random bytes never get past a JSON parser. These do, and meet the checks behind it.
"""

from __future__ import annotations

import json
import random
from typing import NamedTuple

from tests.craft import craft

# JSON as a tree that can say what Python's own values cannot: a name twice, `-0`, `1e999`, anything unparsable.
Raw = str  # JSON text, written as it stands
Object = list[tuple[Raw, "Node"]]
Node = Raw | Object | list["Node"]

BITS = {"BOOL": 8, "U8": 8, "F8_E4M3": 8, "F4": 4, "F6_E2M3": 6, "BF16": 16, "I32": 32, "F32": 32, "C64": 64, "F64": 64}
KEYS = ["a", "layers.0.weight", "", "é", "\x00", "__metadata__", "dtype", "\x1b[31m", "a-0", "\U0001f600", "{", "},"]
JUNK = [
    *("0", "1", "4", "8", "-0", "-1", "1.0", "0.5", "1e2", "1e999", "-1e999", "1E-999", "01", "+1", ".5", "1.", "0x1"),
    *("18446744073709551615", "18446744073709551616", "9223372036854775808", "1099511627776", "9" * 400, "9" * 5000),
    *("null", "true", "false", "NaN", "Infinity", "-Infinity", "nul", "", " ", "\x00", ",", "}", "]", "[", "{"),
    *('""', '"F32"', '"f32"', '"F4"', '"F7"', '"dtype"', '"shape"', '"data_offsets"', '"0"', '"\\ud800"', '"\\udc00"'),
    *('"\\ud83d\\ude00"', '"\\u0061"', '"\\x"', '"\t"', '"\ufeff"', "'a'", '"__metadata__"', '"\\"', '"a'),
    *("[]", "{}", "[0]", "[0,4]", "[0,8]", "[4,8]", "[[]]", "[2,]", "[null]", '{"F32":null}', '{"F4":null}', '{"":0}'),
    *('["F32",[2],[0,8]]', '["F32",[],[0,4]]', '{"dtype":"F32","shape":[2],"data_offsets":[0,8]}', '{"a":1,"a":2}'),
    *("[" * depth + "]" * depth for depth in (60, 120, 123, 124, 125, 126, 127, 128, 2000)),
]


class Mutant(NamedTuple):
    content: bytes


def mutant(rng: random.Random) -> Mutant:
    """A file whose header is good, or nearly. `rng` decides all."""
    document, nbytes = _document(rng)
    for _ in range(rng.choice([0, 0, 1, 1, 2, 3])):
        _mutate(rng, document)
    style = rng.choice([(",", ":"), (", ", ": "), (" ,\n", "\t:\r ")])
    text = rng.choice([*[""] * 16, " ", "\n\t", "\ufeff"]) + _render(document, style) + " " * rng.choice([0, 0, 3])
    if rng.random() < 0.05:
        where = rng.randrange(len(text) + 1)
        text = text[:where] + rng.choice(JUNK) + text[where + rng.choice([0, 1]) :]
    raw = text.encode("utf-8", "surrogatepass")
    if rng.random() < 0.03:
        where = rng.randrange(len(raw))
        raw = raw[:where] + bytes([rng.randrange(256)]) + raw[where + 1 :]
    return Mutant(craft(raw, bytes(max(0, nbytes + rng.choice([0] * 15 + [1, -1])))))


def _document(rng: random.Random) -> tuple[Object, int]:
    """A good header, and how many bytes of data it describes."""
    rows: Object = []
    start = 0
    for key in rng.sample(KEYS, rng.randrange(4)):
        dtype = rng.choice(list(BITS))
        shape = [rng.choice([0, 1, 2, 3, 4, 8]) for _ in range(rng.randrange(4))]
        count = 1
        for extent in shape:
            count *= extent
        stop = start + count * BITS[dtype] // 8
        fields: Object = [
            ('"dtype"', json.dumps(dtype)),
            ('"shape"', list(map(str, shape))),
            ('"data_offsets"', [str(start), str(stop)]),
        ]
        if rng.random() < 0.2:
            rng.shuffle(fields)
        rows.append((_spell(rng, key), fields))
        start = stop
    if rng.random() < 0.3:
        rng.shuffle(rows)
    if rng.random() < 0.3:
        pairs: Object = [(_spell(rng, key), _spell(rng, "pt")) for key in rng.sample(KEYS, rng.randrange(3))]
        rows.insert(rng.choice([0, len(rows)]), ('"__metadata__"', rng.choice([pairs, pairs, "null"])))
    return rows, start


def _spell(rng: random.Random, text: str) -> Raw:
    """A string in JSON, plain or in escapes."""
    if text and rng.random() < 0.15:
        return '"' + "".join(f"\\u{unit:04x}" for unit in _units(text)) + '"'
    return json.dumps(text, ensure_ascii=rng.random() < 0.5)


def _units(text: str) -> list[int]:
    raw = text.encode("utf-16-be")
    return [int.from_bytes(raw[i : i + 2], "big") for i in range(0, len(raw), 2)]


def _mutate(rng: random.Random, document: Object) -> None:
    """One change somewhere in the tree, in place."""
    place: Object | list[Node] = document
    while True:  # down to where the change happens; likelier deep than shallow
        below = [child for child in map(_value, place) if isinstance(child, list)]
        if not below or rng.random() < 0.25:
            break
        place = rng.choice(below)
    at = rng.randrange(len(place) + 1)
    change = rng.choice(["replace", "replace", "replace", "number", "insert", "remove", "twice", "rename"])
    pairs = place is document or any(isinstance(item, tuple) for item in place)
    if change == "insert" or at == len(place):
        junk = rng.choice(JUNK)
        place.insert(at, (_spell(rng, rng.choice(KEYS)), junk) if pairs else junk)
    elif change == "remove":
        del place[at]
    elif change == "twice":
        place.insert(rng.randrange(len(place) + 1), place[at])
    elif change == "rename" and pairs:
        place[at] = (rng.choice([_spell(rng, rng.choice(KEYS)), *JUNK[:3]]), _value(place[at]))
    else:
        old = _value(place[at])
        new = rng.choice(JUNK)
        if change == "number" and isinstance(old, str) and old.isdecimal() and len(old) < 30:
            new = str(max(0, int(old) + rng.choice([-8, -4, -1, 1, 4, 8])))
        place[at] = (place[at][0], new) if isinstance(place[at], tuple) else new


def _value(item: Node | tuple[Raw, Node]) -> Node:
    return item[1] if isinstance(item, tuple) else item


def _render(node: Node, style: tuple[str, str], top: bool = True) -> str:
    comma, colon = style
    if isinstance(node, str):
        return node
    if top or any(isinstance(item, tuple) for item in node):
        return "{" + comma.join(key + colon + _render(value, style, False) for key, value in node) + "}"
    return "[" + comma.join(_render(item, style, False) for item in node) + "]"
