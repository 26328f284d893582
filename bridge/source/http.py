"""Files behind `https://`: fsspec's own session, every answer checked before its body is read."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast
from urllib.parse import SplitResult, unquote, urljoin, urlsplit, urlunsplit
from urllib.parse import quote as escaped

from bridge._errors import CheckpointError
from bridge._text import printable, quote
from bridge.source.ranged import BUSY, HEAD_NBYTES, RangedFile, Scattered, busy, changed, check_range, first_bytes
from bridge.source.retry import PassingError, Tries

CONNECT_SECONDS = 10.0
READ_SECONDS = 20.0
"""How long a server may take to answer, and then be silent between two bytes."""
_PAGE_NBYTES = 4 << 20  # of a page that lists a folder; more is not looked at


_LINK = re.compile(r"""<a\s[^<>]{0,4096}?\bhref\s*=\s*(?:"([^"<>]*)"|'([^'<>]*)'|([^\s"'<>]+))""", re.IGNORECASE)


class HttpFolder:
    """A folder of a web server, by an fsspec HTTP file system. What a URL asks for after `?` goes with every file.

    A file's name is one segment of a path or several, and each goes into the URL with everything escaped that means
    something there: an index is not to choose other files than those below the folder.
    """

    def __init__(self, fs: Any, url: str, one: str | None = None) -> None:
        """**Arguments:** `one`: the file that the user's own URL names, one segment whatever is in it."""
        # The user's own spelling is made a URL here, once. From here on no client changes it.
        parts = split_url(str(fs.encode_url(url)))
        self._fs = fs
        self._query = parts.query
        self._url = urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/"), "", ""))
        self._one = one
        self.label = shown_url(url).rstrip("/") + "/"

    def names(self) -> Sequence[str]:
        """The files that the folder's own page links to, sorted; none where there is no such page."""
        page = _Page(self._fs, f"{self._url}/", name=self.label)
        base = urlsplit(page.url)
        below = [
            unquote(found.path[len(base.path) :])
            for found in page.links()
            if found[:2] == base[:2] and found.path.startswith(base.path)
        ]
        return sorted({name for name in below if name and "/" not in name})

    def below(self) -> Sequence[str]:
        """A web server does not list what it has."""
        return ()

    def has(self, name: str) -> bool:
        """Whether the server has it."""
        try:
            self.open(name).close()
        except CheckpointError as e:
            if isinstance(e.__cause__, FileNotFoundError):
                return False
            raise
        return True

    def open(self, name: str, *, hold: bool = True) -> HttpFile:
        """Ask for the first bytes of a file, and with them for its length."""
        segments = [name] if self._one and name.startswith(self._one) else name.split("/")
        path = "/".join(escaped(segment, safe="") for segment in segments)
        url = f"{self._url}/{path}" + (f"?{self._query}" if self._query else "")
        return HttpFile(self._fs, url, name=self.label + name)

    def sha256(self, name: str) -> str | None:
        """Servers know other checksums, if any."""
        return None


class HttpFile(RangedFile):
    """A file of a web server, read by ranges. That it stays the same file is checked by its ETag, where it has one."""

    def __init__(self, fs: Any, url: str, *, name: str) -> None:
        self._fs = fs
        self._url = url
        self._etag: str | None = None
        nbytes, head = first_bytes(name, lambda into: self._ask(name, 0, HEAD_NBYTES, None, into))
        super().__init__(name, nbytes, head)

    def transfer(self, start: int, stop: int, into: Scattered) -> None:
        """One ranged request."""
        self._ask(self.name, start, stop, self.nbytes, into)

    def _ask(self, name: str, start: int, stop: int, nbytes: int | None, into: Scattered) -> int:
        """Bytes `[start, stop)` into `into`; returns the file's length."""

        def check(response: Any) -> int:
            length = check_range(name, response.status, response.headers, start, stop, nbytes)
            etag = response.headers.get("ETag")
            if nbytes is not None and etag != self._etag:
                raise changed(name, "its server has another one of the same length")
            self._etag = etag
            return length

        return _get(self._fs, self._url, f"bytes={start}-{stop - 1}", check, into.write)


class _Page:
    """The page of a folder, if its server shows one."""

    def __init__(self, fs: Any, url: str, *, name: str) -> None:
        self.url = url
        self._text = bytearray()
        try:
            Tries(quote(name), "cannot be listed").run(lambda: _get(fs, url, None, self._check, self._take))
        except _NoPageError:
            self._text.clear()

    def links(self) -> Iterator[SplitResult]:
        """What it links to."""
        for found in _LINK.finditer(self._text.decode(errors="replace")):
            try:
                yield urlsplit(urljoin(self.url, html.unescape(found[1] or found[2] or found[3] or "")))
            except ValueError:
                continue  # a link that is no URL leads to no file

    def _check(self, response: Any) -> int:
        if response.status in BUSY:
            raise busy(response.status, response.headers)
        if response.status != 200 or not response.headers.get("Content-Type", "").startswith("text/html"):
            raise _NoPageError
        self.url = str(response.url)
        self._text.clear()
        return 0

    def _take(self, chunk: bytes) -> None:
        self._text += chunk
        if len(self._text) > _PAGE_NBYTES:
            raise _NoPageError


class _NoPageError(Exception):
    """What is there is no page that lists files."""


def _get(fs: Any, url: str, ranged: str | None, check: Callable[[Any], int], take: Callable[[bytes], None]) -> int:
    """One GET by fsspec's session, on fsspec's event loop.

    **Arguments:**

    - `url`: as it is to be sent: nothing in it is escaped, or taken back, on the way.
    - `ranged`: the Range header, if any.
    - `check`: looks at the answer before its body is read; what it returns is returned.
    - `take`: gets the body, part by part.

    **Raises:** `PassingError`, `CheckpointError`, and what `check` and `take` raise.
    """
    import aiohttp  # fsspec's HTTP file system has it
    from fsspec import asyn  # pyright: ignore[reportMissingTypeStubs]
    from yarl import URL  # aiohttp's own

    async def run() -> int:
        session = await fs.set_session()
        own: dict[str, Any] = dict(fs.kwargs)
        # Compressed, a range would be one of other bytes.
        headers = {**own.pop("headers", {}), "Accept-Encoding": "identity"} | ({"Range": ranged} if ranged else {})
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=READ_SECONDS)
        request = {"read_bufsize": 1 << 20, "timeout": timeout, **own, "headers": headers}
        async with session.get(URL(url, encoded=True), **request) as response:
            found = check(response)
            async for chunk in response.content.iter_any():
                take(chunk)
        return found

    subject = quote(shown_url(url))
    try:
        return cast("int", asyn.sync(fs.loop, run))  # pyright: ignore[reportUnknownMemberType]
    except TimeoutError as e:
        raise PassingError("the server was silent for too long") from e
    except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, ConnectionError) as e:
        raise PassingError(f"{type(e).__name__}: {e}") from e
    except CheckpointError:
        raise
    except (aiohttp.InvalidURL, ValueError) as e:
        raise CheckpointError(subject, "is not a URL", "Check its spelling") from e
    except aiohttp.ClientError as e:
        raise CheckpointError(subject, f"cannot be read: {type(e).__name__}", "Check the URL") from e


def split_url(url: str) -> SplitResult:
    """The parts of a URL. **Raises:** `CheckpointError` where it has none, or a port that is none."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as e:
        # No part of it is known, so none that may be secret is shown.
        shown = re.sub(r"//.*@", "//", url.partition("?")[0], flags=re.DOTALL)
        raise CheckpointError(quote(shown), f"is not a URL: {printable(str(e))}", "Check its spelling") from e
    return parts


def shown_url(url: str) -> str:
    """A URL as messages show it: without a password, and without a query, which may be a signature."""
    parts = split_url(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
