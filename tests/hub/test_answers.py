"""Every answer of a server to a range is what was asked for, or an error that says what came instead."""

from __future__ import annotations

import re

import pytest

from bridge import CheckpointError
from bridge.source.ranged import Scattered, check_range
from bridge.source.retry import PassingError
from tests.errors.promised import text_of

RANGE = {"Content-Range": "bytes 10-19/100"}


def said(case: str) -> str:
    return text_of(f"https: {case}").replace("https://example.com/x.safetensors", "it")


@pytest.mark.parametrize(
    ("status", "headers", "nbytes"),
    [
        (206, RANGE, 100),
        (206, RANGE, None),
        (206, {"Content-Range": " bytes 10-19/* ", "Content-Encoding": "identity"}, 100),
    ],
)
def test_the_range_that_was_asked_for(status: int, headers: dict[str, str], nbytes: int | None):
    assert check_range("it", status, headers, 10, 20, nbytes) == 100


def test_the_front_of_a_file_whose_length_is_not_known():
    assert check_range("it", 206, {"Content-Range": "bytes 0-4/5"}, 0, 20, None) == 5
    assert check_range("it", 200, {"Content-Length": "5"}, 0, 20, None) == 5  # all of it, and not too much
    assert check_range("it", 416, {}, 0, 20, None) == 0


@pytest.mark.parametrize(
    ("status", "headers", "message"),
    [
        (404, {}, said("an answer that says nothing is there")),
        (410, {}, said("an answer that says nothing is there")),
        (401, {}, said("an answer that refuses")),
        (403, {}, said("an answer that refuses").replace("401", "403")),
        (418, {}, said("an answer of another kind")),
        (206, {}, said("an answer without a range")),
        (
            206,
            {"Content-Range": "bytes 0-9/100"},
            said("an answer of another range"),
        ),
        (
            206,
            {"Content-Range": "bytes 10-19/99"},
            said("an answer of another length"),
        ),
        (416, {}, said("an answer beyond the end")),
        (
            200,
            {"Content-Length": "100"},
            said("an answer that is whole"),
        ),
        (200, {}, said("an answer that is whole")),
        (
            206,
            {**RANGE, "Content-Encoding": "gzip"},
            said("an answer that is compressed"),
        ),
        (
            206,
            {"Content-Range": f"bytes 10-19/{'9' * 5000}"},
            said("an answer without a range"),
        ),
    ],
)
def test_what_comes_instead(status: int, headers: dict[str, str], message: str):
    with pytest.raises(CheckpointError) as caught:
        check_range("it", status, headers, 10, 20, 100)
    assert str(caught.value) == message


def test_a_length_that_nobody_says():
    with pytest.raises(CheckpointError) as caught:
        check_range("it", 206, {"Content-Range": "bytes 0-19/*"}, 0, 20, None)
    assert str(caught.value) == said("an answer without a length")


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_what_may_pass(status: int):
    with pytest.raises(PassingError) as caught:
        check_range("it", status, {"Retry-After": "7"}, 10, 20, 100)
    assert caught.value.after == 7
    with pytest.raises(PassingError) as caught:
        check_range("it", status, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 10, 20, 100)
    assert caught.value.after is None


def test_more_than_there_is_room_for():
    parts = [bytearray(3), bytearray(0), bytearray(4)]
    into = Scattered([memoryview(p) for p in parts], "it")
    into.write(b"ab")
    into.write(b"cdefg")
    assert [bytes(p) for p in parts] == [b"abc", b"", b"defg"]
    assert into.done == into.nbytes == 7
    message = said("more than was asked for").replace("3 bytes", "7 bytes")
    with pytest.raises(CheckpointError, match=f"^{re.escape(message)}$"):
        into.write(b"h")
