"""Files behind an fsspec URL: `s3://`, `gs://`, `memory://` …, and the way to `https://`. Nothing touches the disk."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, cast
from urllib.parse import urlsplit

from bridge._errors import CheckpointError
from bridge._text import printable, quote
from bridge.source.folder import Folder
from bridge.source.http import HttpFolder, shown_url
from bridge.source.ranged import HEAD_NBYTES, RangedFile, Scattered
from bridge.source.retry import PassingError, Tries

# Stores whose file systems take a path to the letter. Others make a URL or a command of it, and may take a part of a
# name for something else.
_LITERAL = frozenset({"abfs", "az", "file", "ftp", "gcs", "gs", "local", "memory", "s3", "s3a", "sftp", "smb", "ssh"})
_LISTED = 20  # folders in which a checkpoint is looked for, to name them
_BENT = re.compile(r"[^\w .,;=@+~!()/-]")


def remote_folder(url: str, one: str | None = None) -> Folder:
    """The folder that an fsspec URL names. `CheckpointError` if its protocol is unknown or its driver is missing.

    **Arguments:** `one`: the file in it that the user's own URL names.
    """

    def find() -> Folder:
        import fsspec  # pyright: ignore[reportMissingTypeStubs]: only those who use URLs need it

        fs, path = cast("tuple[Any, str]", fsspec.core.url_to_fs(url))  # pyright: ignore[reportUnknownMemberType]
        if urlsplit(url).scheme in ("http", "https"):
            from fsspec.implementations.http import HTTPFileSystem  # pyright: ignore[reportMissingTypeStubs]

            if isinstance(fs, HTTPFileSystem):
                return HttpFolder(fs, url, one)
        return RemoteFolder(fs, path, label=shown_url(url), one=one)

    return _patiently(shown_url(url), "opened", find)


class RemoteFolder:
    """A folder of an fsspec file system."""

    def __init__(self, fs: Any, path: str, *, label: str, one: str | None = None) -> None:
        self.label = label.rstrip("/") + "/"
        self._fs = fs
        self._path = path.rstrip("/")
        self._one = one
        protocols = (fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol
        self._literal = not _LITERAL.isdisjoint(protocols)

    def names(self) -> Sequence[str]:
        """All but folders, sorted."""
        entries = _patiently(self.label, "listed", lambda: self._fs.ls(self._path, detail=True))
        return sorted(str(e["name"]).rstrip("/").rsplit("/", 1)[-1] for e in entries if e["type"] != "directory")

    def below(self) -> Sequence[str]:
        """Those of the first folders."""
        entries = _patiently(self.label, "listed", lambda: self._fs.ls(self._path, detail=True))
        folders = sorted(str(e["name"]).rstrip("/") for e in entries if e["type"] == "directory")[:_LISTED]
        inside = [_patiently(self.label, "listed", lambda f=f: self._fs.ls(f, detail=True)) for f in folders]
        files = (str(e["name"]).rsplit("/", 2)[-2:] for found in inside for e in found if e["type"] != "directory")
        return sorted(map("/".join, files))

    def has(self, name: str) -> bool:
        """Whether the store holds it."""
        return bool(_patiently(self.label + name, "looked up", lambda: self._fs.exists(self._at(name))))

    def open(self, name: str, *, hold: bool = True) -> RemoteFile:
        """Ask for the file's length; nothing else is fetched yet."""
        return RemoteFile(self._fs, self._at(name), name=self.label + name)

    def sha256(self, name: str) -> str | None:
        """Stores know other checksums, if any."""
        return None

    def _at(self, name: str) -> str:
        """The path of a file. **Raises:** `CheckpointError` for a name that the store may take for another one's."""
        found = None if self._literal or name == self._one else _BENT.search(name)
        if found is not None:
            raise CheckpointError(
                quote(self.label + name),
                f"has {quote(found[0])} in its name, which its store may decode",
                "Fetch it to the disk and open it there",
            )
        return f"{self._path}/{name}"


class RemoteFile(RangedFile):
    """A file of an fsspec file system, read by ranges."""

    def __init__(self, fs: Any, path: str, *, name: str) -> None:
        self._fs = fs
        self._path = path
        length = _patiently(name, "opened", lambda: fs.info(path)["size"])
        if not isinstance(length, int):
            raise CheckpointError(quote(name), "does not say how long it is", "Fetch it to the disk and open it there")
        super().__init__(name, length)

    def transfer(self, start: int, stop: int, into: Scattered) -> None:
        """One ranged request, by the file system's own means."""
        with _named(self.name, f"read at byte {start:,}"):
            body = cast("bytes", self._fs.cat_file(self._path, start=start, end=stop))
        if len(body) > stop - start:  # a server that ignores ranges hands out the whole file
            raise CheckpointError(
                quote(self.name),
                (
                    f": {len(body):,} bytes came where {stop - start:,} were asked for, from byte {start:,}: the "
                    "file has changed, or its server ignores ranges"
                ),
                "Fetch it to the disk and open it there",
            )
        if start == 0:
            self._head = body[:HEAD_NBYTES]  # asked for with the header: the first tensors need not be fetched again
        into.write(body)


def _patiently(name: str, done: str, work: Callable[[], Any]) -> Any:
    """What `work` returns, after several tries if need be."""

    def once() -> Any:
        with _named(name, done):
            return work()

    return Tries(quote(name), f"cannot be {done}").run(once)


@contextmanager
def _named(name: str, done: str) -> Generator[None]:
    """What a file system's driver raises, as an error that names the file; as `PassingError` where it may pass."""
    try:
        yield
    except (PassingError, CheckpointError):
        raise
    except ImportError as e:
        raise CheckpointError(quote(name), f"cannot be {done}: {_said(e)}", "Install what it asks for") from e
    except FileNotFoundError as e:
        raise CheckpointError(quote(name), "does not exist", "Check the URL") from e
    except PermissionError as e:
        raise CheckpointError(quote(name), f"may not be {done}: {_said(e)}", "Check your credentials") from e
    except (IsADirectoryError, NotADirectoryError, ValueError, TypeError) as e:
        raise CheckpointError(quote(name), f"cannot be {done}: {_said(e)}", "Check the URL") from e
    except Exception as e:
        raise PassingError(_said(e)) from e


def _said(error: Exception) -> str:
    return printable(str(error)) or type(error).__name__
