"""Every answer of a server to a range is what was asked for, or an error that says what came instead."""

from __future__ import annotations

import re

import pytest

from bridge import CheckpointError
from bridge.source.ranged import Scattered, check_range
from bridge.source.retry import PassingError

FETCH_IT = "Fetch it to the disk and open it there."
RANGE = {"Content-Range": "bytes 10-19/100"}


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
        (404, {}, "'it' does not exist. Check the URL."),
        (410, {}, "'it' does not exist. Check the URL."),
        (401, {}, "'it' may not be read: HTTP status 401. Check your credentials."),
        (403, {}, "'it' may not be read: HTTP status 403. Check your credentials."),
        (418, {}, "'it' cannot be read: HTTP status 418. Check the URL."),
        (206, {}, f"'it': its server does not say which range it sends (Content-Range). {FETCH_IT}"),
        (
            206,
            {"Content-Range": "bytes 0-9/100"},
            f"'it': bytes 10 to 20 were asked for, 0 to 10 came. {FETCH_IT}",
        ),
        (
            206,
            {"Content-Range": "bytes 10-19/99"},
            "'it' has changed since it was opened: it held 100 bytes, now 99. Open the checkpoint again.",
        ),
        (416, {}, "'it' has changed since it was opened: it has no byte 10 any more. Open the checkpoint again."),
        (
            200,
            {"Content-Length": "100"},
            f"'it' cannot be read in parts: its server ignores ranges. {FETCH_IT}",
        ),
        (200, {}, f"'it' cannot be read in parts: its server ignores ranges. {FETCH_IT}"),
        (
            206,
            {**RANGE, "Content-Encoding": "gzip"},
            f"'it' cannot be read in parts: its server compresses it (Content-Encoding: gzip). {FETCH_IT}",
        ),
        (
            206,
            {"Content-Range": f"bytes 10-19/{'9' * 5000}"},
            f"'it': its server does not say which range it sends (Content-Range). {FETCH_IT}",
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
    assert str(caught.value) == f"'it' does not say how long it is. {FETCH_IT}"


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
    message = f"'it': 7 bytes were asked for, and more came. {FETCH_IT}"
    with pytest.raises(CheckpointError, match=f"^{re.escape(message)}$"):
        into.write(b"h")
