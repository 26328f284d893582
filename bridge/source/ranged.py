"""Files that are not on a disk: read range by range, each range checked, resumed and tried again."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

from bridge._errors import CheckpointError
from bridge._text import printable, quote
from bridge.format.header import FIRST_READ_NBYTES as HEAD_NBYTES
from bridge.source.retry import PassingError, Tries, seconds

_FETCH_IT = "Fetch it to the disk and open it there"
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.ASCII)
BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP statuses that may pass."""


class Scattered:
    """Buffers that what arrives is written to, one after the other."""

    def __init__(self, buffers: Sequence[memoryview], name: str) -> None:
        """**Arguments:** the buffers, and what messages call the file that is to fill them."""
        self._name = name
        self._rest = [buffer.cast("B") for buffer in reversed(buffers) if buffer.nbytes]
        self.nbytes = sum(buffer.nbytes for buffer in self._rest)
        self.done = 0

    def write(self, chunk: bytes | memoryview) -> None:
        """Take what has come; an error if it is more than was asked for."""
        part = memoryview(chunk)
        while part.nbytes:
            if not self._rest:
                raise CheckpointError(
                    quote(self._name), f": {self.nbytes:,} bytes were asked for, and more came", _FETCH_IT
                )
            buffer = self._rest[-1]
            count = min(buffer.nbytes, part.nbytes)
            buffer[:count] = part[:count]
            part, self.done = part[count:], self.done + count
            self._rest[-1] = buffer[count:]
            if count == buffer.nbytes:
                self._rest.pop()


class RangedFile(ABC):
    """A file that a server hands out by ranges. A new kind of server says how, in `transfer`."""

    parallel: int | None = 8
    """Requests that are in flight at once: each waits for its first byte much longer than for its last one."""
    absent = False
    gap_nbytes = 1 << 20
    """Bytes that are cheaper to receive and throw away than another request is."""

    def __init__(self, name: str, nbytes: int, head: bytes = b"") -> None:
        """**Arguments:** what messages call it, its length, and its first bytes as far as they are known already."""
        self.name = name
        self.nbytes = nbytes
        self._head: bytes = head
        self._closed = False

    @abstractmethod
    def transfer(self, start: int, stop: int, into: Scattered) -> None:
        """Ask once for bytes `[start, stop)` and write what comes.

        **Raises:** `PassingError` for what is worth another try, from where `into` has got to; `CheckpointError` for
        what is not, such as an answer that is not the range that was asked for.
        """

    def readinto(self, buffers: Sequence[memoryview], offset: int) -> None:
        """Fill all `buffers` from byte `offset` on; `CheckpointError` if that cannot be had."""
        if self._closed:
            raise CheckpointError(quote(self.name), "is closed", "Open the checkpoint again")
        into = Scattered(buffers, self.name)
        stop = offset + into.nbytes
        if into.nbytes == 0:
            return
        if stop > self.nbytes:
            raise CheckpointError(
                quote(self.name),
                f"holds {self.nbytes:,} bytes, up to {stop:,} were to be read: it is cut off",
                "Fetch it again",
            )
        into.write(memoryview(self._head)[offset:stop])
        tries = Tries(quote(self.name), f"cannot be read at byte {offset:,}")
        while into.done < into.nbytes:
            before = into.done
            try:
                self.transfer(offset + before, stop, into)
                if into.done < into.nbytes:
                    raise PassingError(
                        f"{into.done - before:,} bytes came where {stop - offset - before:,} were asked for"
                    )
            except PassingError as failure:
                tries.again(failure, moved=into.done > before)

    def close(self) -> None:
        """Refuse further reads; connections are shared, and their library's own."""
        self._closed = True

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, nbytes={self.nbytes})"


def first_bytes(name: str, ask: Callable[[Scattered], int]) -> tuple[int, bytes]:
    """The length of a file and its first bytes, by one request.

    **Arguments:** `ask` writes up to `HEAD_NBYTES` bytes and returns the file's length, or raises as `transfer` does.
    """

    def once() -> tuple[int, bytes]:
        head = bytearray(HEAD_NBYTES)
        into = Scattered([memoryview(head)], name)
        nbytes = ask(into)
        wanted = min(nbytes, HEAD_NBYTES)
        if into.done < wanted:
            raise PassingError(f"{into.done:,} bytes came where {wanted:,} were asked for")
        return nbytes, bytes(head[:wanted])

    return Tries(quote(name), "cannot be opened").run(once)


def check_range(name: str, status: int, headers: Mapping[str, str], start: int, stop: int, nbytes: int | None) -> int:
    """Check that an HTTP answer is the range that was asked for, before its body is read.

    **Arguments:**

    - `name`: the file, for messages.
    - `status`, `headers`: of the answer; names in any case, as HTTP libraries look them up.
    - `start`, `stop`: the bytes asked for, half open.
    - `nbytes`: the file's length, None where this answer is to tell it; `stop` may then lie beyond its end.

    **Returns:** the file's length.

    **Raises:** `PassingError` where a server is busy; `CheckpointError`.
    """
    subject = quote(name)
    if status in BUSY:
        raise busy(status, headers)
    if status in (404, 410):
        raise CheckpointError(subject, "does not exist", "Check the URL") from FileNotFoundError(name)
    if status in (401, 403, 407):
        raise CheckpointError(subject, f"may not be read: HTTP status {status}", "Check your credentials")
    encoding = headers.get("Content-Encoding", "")
    if status in (200, 206) and encoding not in ("identity", ""):
        raise CheckpointError(
            subject,
            f"cannot be read in parts: its server compresses it (Content-Encoding: {printable(encoding)[:40]})",
            _FETCH_IT,
        )
    if status == 206:
        found = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", "").strip())
        if found is None:
            raise CheckpointError(subject, ": its server does not say which range it sends (Content-Range)", _FETCH_IT)
        total = nbytes if found[3] == "*" else int(found[3])
        if total is None:
            raise CheckpointError(subject, "does not say how long it is", _FETCH_IT)
        if nbytes is not None and total != nbytes:
            raise changed(name, f"it held {nbytes:,} bytes, now {total:,}")
        if (int(found[1]), int(found[2]) + 1) != (start, min(stop, total)):
            asked = f"bytes {start:,} to {min(stop, total):,} were asked for"
            raise CheckpointError(subject, f": {asked}, {int(found[1]):,} to {int(found[2]) + 1:,} came", _FETCH_IT)
        return total
    if status == 416 and nbytes is None and start == 0:
        return 0  # an empty file has no first byte
    if status == 416:
        raise changed(name, f"it has no byte {start:,} any more")
    length = headers.get("Content-Length", "")
    if status == 200 and start == 0 and re.fullmatch(r"\d{1,18}", length, re.ASCII) and int(length) <= stop:
        if nbytes is not None and int(length) != nbytes:
            raise changed(name, f"it held {nbytes:,} bytes, now {int(length):,}")
        return int(length)  # all of a file that is not longer than what was asked for
    if status == 200:
        raise CheckpointError(subject, "cannot be read in parts: its server ignores ranges", _FETCH_IT)
    raise CheckpointError(subject, f"cannot be read: HTTP status {status}", "Check the URL")


def changed(name: str, how: str) -> CheckpointError:
    """The error for a file that is not what it was when it was opened."""
    return CheckpointError(quote(name), f"has changed since it was opened: {how}", "Open the checkpoint again")


def busy(status: int, headers: Mapping[str, str]) -> PassingError:
    """What a server that is busy, or that limits how often it is asked, comes to."""
    after = seconds(headers.get("Retry-After"))
    if status == 429:
        return PassingError(
            "the server limits how often it is asked (HTTP status 429)", after=after, advice="Try again later"
        )
    return PassingError(f"the server is busy (HTTP status {status})", after=after, advice="Try again later")
