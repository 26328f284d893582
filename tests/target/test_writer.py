"""Files straight from memory: long pieces one by one, short ones together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bridge.target.writer import make_file, verify_file, write_file, write_ranges

LENGTHS = (0, 1, 100_000, 262_143, 262_144, 262_145, 3, 0, 200_000, 200_000, 5_000_000, 7, 262_144, 1)


def reused() -> Iterator[np.ndarray]:
    """Arrays that all lie in one memory: each is gone when the next one is asked for."""
    memory = np.empty(max(LENGTHS), np.uint8)
    for number, length in enumerate(LENGTHS):
        memory[:length] = number
        yield memory[:length]


EXPECTED = b"".join(bytes([number]) * length for number, length in enumerate(LENGTHS))


@pytest.mark.parametrize("raw", [False, True])
def test_pieces_of_any_length(tmp_path: Path, raw: bool):
    pieces = [array.data if raw else array for array in map(np.copy, reused())]
    told: list[int] = []
    assert write_file(tmp_path / "x", b"head", pieces, shown="x", wrote=told.append) == 4 + len(EXPECTED)
    assert (tmp_path / "x").read_bytes() == b"head" + EXPECTED
    assert sum(told) == len(EXPECTED)
    verify_file(tmp_path / "x", b"head", pieces, shown="x")


def test_memory_that_is_used_again(tmp_path: Path):
    write_file(tmp_path / "x", b"head", reused(), shown="x")
    assert (tmp_path / "x").read_bytes() == b"head" + EXPECTED


def test_ranges_apart(tmp_path: Path):
    make_file(tmp_path / "x", b"head", 1000, shown="x")
    ranges = [(10, b"ab"), (12, b"cd"), (500, b"ef"), (20, b"gh"), (998, b"ij")]
    write_ranges(tmp_path / "x", [(at, np.frombuffer(data, np.uint8)) for at, data in ranges], shown="x")
    expected = bytearray(b"head" + bytes(996))
    for at, data in ranges:
        expected[at : at + 2] = data
    assert (tmp_path / "x").read_bytes() == expected
