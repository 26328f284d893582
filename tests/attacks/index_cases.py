"""Abuses of an index that its own bytes show; `tests/errors/texts.txt` has the words that refuse each."""

from __future__ import annotations

import json

NAMES = {
    "is empty": "",
    "holds a NUL": "x\0.safetensors",
    "is a URL": "https://example.com/x.safetensors",
    "is a URL of a file": "file:///etc/passwd",
    "holds a backslash": "..\\x.safetensors",
    "is of another host, by backslashes": "\\\\host\\share",
    "is absolute": "/etc/passwd",
    "is of another host": "//host/share",
    "has a drive": "C:x.safetensors",
    "has a drive and is absolute": "c:/x.safetensors",
    "leaves the folder": "../x.safetensors",
    "leaves the folder later": "a/../../x.safetensors",
    "ends in two dots": "a/..",
    "begins with a dot": "./x.safetensors",
    "has two slashes": "a//x.safetensors",
    "ends in a slash": "a/",
}
"""What is wrong with a name of a file: no name leaves the folder of the index, on any system."""

ABUSES = {
    "empty": b"",
    "a byte order mark": b"\xef\xbb\xbf{}",
    "no UTF-8": b"\xff",
    "100,000 levels": b"[" * 100_000,
    "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\n",
    "no JSON": b"{",
    "a list": b"[]",
    "no weight_map": b"{}",
    "weight_map is null": b'{"weight_map":null}',
    "weight_map is a list": b'{"weight_map":[["a","b"]]}',
    "a file is a number": b'{"weight_map":{"a":1}}',
    "a file is null": b'{"weight_map":{"a":null}}',
    "a file is a list": b'{"weight_map":{"a":["x"]}}',
    "metadata is a list": b'{"weight_map":{},"metadata":[]}',
    "a key twice": b'{"weight_map":{"a":"x","a":"y"}}',
    "weight_map twice": b'{"weight_map":{"a":"x"},"weight_map":{}}',
    "a lone surrogate": b'{"weight_map":{"a":"\\ud800"}}',
    "NaN": b'{"weight_map":{},"metadata":{"n":NaN}}',
    "a number out of range": b'{"weight_map":{},"n":' + b"9" * 5000 + b"}",
} | {f"a name that {what}": json.dumps({"weight_map": {"a": name}}).encode() for what, name in NAMES.items()}
"""What is wrong with an index, and its bytes."""
