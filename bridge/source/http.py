"""Files behind `https://`: fsspec's own session, every answer checked before its body is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from typing import Any, cast
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

from bridge._errors import CheckpointError
from bridge._text import quote
from bridge.source.ranged import BUSY, HEAD_NBYTES, RangedFile, Scattered, busy, changed, check_range, first_bytes
from bridge.source.retry import PassingError, Tries

CONNECT_SECONDS = 10.0
READ_SECONDS = 20.0
"""How long a server may take to answer, and then be silent between two bytes."""
_PAGE_NBYTES = 4 << 20  # of a page that lists a folder; more is not looked at


class HttpFolder:
    """A folder of a web server, by an fsspec HTTP file system. What a URL asks for after `?` goes with every file."""

    def __init__(self, fs: Any, url: str) -> None:
        parts = urlsplit(url)
        self._fs = fs
        self._query = parts.query
        self._url = urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/"), "", ""))
        self.label = shown_url(self._url) + "/"

    def names(self) -> Sequence[str]:
        """The files that the folder's own page links to, sorted; none where there is no such page."""
        page = _Page(self._fs, f"{self._url}/", name=self.label)
        found = (urlsplit(urljoin(page.url, link)) for link in page.links())
        base = urlsplit(page.url)
        below = [unquote(f.path[len(base.path) :]) for f in found if f[:2] == base[:2] and f.path.startswith(base.path)]
        return sorted({name for name in below if name and "/" not in name})

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
        url = f"{self._url}/{name}" + (f"?{self._query}" if self._query else "")
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
            if response.status in (404, 410):
                raise CheckpointError(f"{quote(name)} does not exist. Check the URL.") from FileNotFoundError(name)
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
            Tries(f"{quote(name)} cannot be listed").run(lambda: _get(fs, url, None, self._check, self._take))
        except _NoPageError:
            self._text.clear()

    def links(self) -> list[str]:
        """What it links to, as it spells it."""
        found: list[str] = []

        class Links(HTMLParser):
            def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
                found.extend(value for key, value in attrs if tag == "a" and key == "href" and value)

        Links().feed(self._text.decode(errors="replace"))
        return found

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

    - `ranged`: the Range header, if any.
    - `check`: looks at the answer before its body is read; what it returns is returned.
    - `take`: gets the body, part by part.

    **Raises:** `PassingError`, `CheckpointError`, and what `check` and `take` raise.
    """
    import aiohttp  # fsspec's HTTP file system has it
    from fsspec import asyn  # pyright: ignore[reportMissingTypeStubs]

    async def run() -> int:
        session = await fs.set_session()
        own: dict[str, Any] = dict(fs.kwargs)
        # Compressed, a range would be one of other bytes.
        headers = {**own.pop("headers", {}), "Accept-Encoding": "identity"} | ({"Range": ranged} if ranged else {})
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=READ_SECONDS)
        request = {"read_bufsize": 1 << 20, "timeout": timeout, **own, "headers": headers}
        async with session.get(fs.encode_url(url), **request) as response:
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
    except aiohttp.InvalidURL as e:
        raise CheckpointError(f"{subject} is no URL. Check its spelling.") from e
    except aiohttp.ClientError as e:
        raise CheckpointError(f"{subject} cannot be read: {type(e).__name__}. Check the URL.") from e


def shown_url(url: str) -> str:
    """A URL as messages show it: without a password, and without a query, which may be a signature."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
