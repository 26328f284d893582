"""Files behind an fsspec URL: `s3://`, `gs://`, `https://`, `hf://`, `memory://` … Nothing touches the disk."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, cast

from bridge._errors import CheckpointError
from bridge._text import printable, quote


def remote_folder(url: str) -> RemoteFolder:
    """The folder that an fsspec URL names. `CheckpointError` if its protocol is unknown or its driver is missing."""
    with _named(url, "opened"):
        import fsspec  # pyright: ignore[reportMissingTypeStubs]: only those who use URLs need it

        fs, path = cast("tuple[Any, str]", fsspec.core.url_to_fs(url))  # pyright: ignore[reportUnknownMemberType]
    return RemoteFolder(fs, path, label=url)


class RemoteFolder:
    """A folder of an fsspec file system."""

    def __init__(self, fs: Any, path: str, *, label: str) -> None:
        self.label = label.rstrip("/") + "/"
        self._fs = fs
        self._path = path.rstrip("/")

    def names(self) -> Sequence[str]:
        """All but folders, sorted."""
        with _named(self.label, "listed"):
            entries = self._fs.ls(self._path, detail=True)
        return sorted(str(e["name"]).rstrip("/").rsplit("/", 1)[-1] for e in entries if e["type"] != "directory")

    def has(self, name: str) -> bool:
        """Whether the store holds it."""
        with _named(self.label + name, "looked up"):
            return bool(self._fs.exists(f"{self._path}/{name}"))

    def open(self, name: str, *, hold: bool = True) -> RemoteFile:
        """Ask for the file's length; nothing else is fetched yet."""
        return RemoteFile(self._fs, f"{self._path}/{name}", name=self.label + name)

    def sha256(self, name: str) -> str | None:
        """Stores know other checksums, if any."""
        return None


class RemoteFile:
    """A file of an fsspec file system, read by ranges."""

    def __init__(self, fs: Any, path: str, *, name: str) -> None:
        self.name = name
        self._fs = fs
        self._path = path
        self._closed = False
        with _named(name, "opened"):
            length = fs.info(path)["size"]
        if not isinstance(length, int):
            raise CheckpointError(f"{quote(name)} does not say how long it is. Fetch it to the disk and open it there.")
        self.nbytes = length

    def readinto(self, buffers: Sequence[memoryview], offset: int) -> None:
        """Fill all `buffers` by one ranged request."""
        if self._closed:
            raise CheckpointError(f"{quote(self.name)} is closed. Open the checkpoint again.")
        wanted = sum(b.nbytes for b in buffers)
        if wanted == 0:
            return
        with _named(self.name, f"read at byte {offset:,}"):
            body = self._fs.cat_file(self._path, start=offset, end=offset + wanted)
        if len(body) != wanted:  # a server that ignores ranges hands out the whole file
            raise CheckpointError(
                f"{quote(self.name)}: {len(body):,} bytes came where {wanted:,} were asked for, from byte {offset:,}. "
                "The file has changed, or its server ignores ranges: fetch it to the disk and open it there."
            )
        done = 0
        for buffer in buffers:
            buffer.cast("B")[:] = body[done : done + buffer.nbytes]
            done += buffer.nbytes

    def close(self) -> None:
        """Refuse further reads; connections are fsspec's own."""
        self._closed = True

    def __repr__(self) -> str:
        return f"RemoteFile({self.name!r}, nbytes={self.nbytes})"


@contextmanager
def _named(name: str, done: str) -> Generator[None]:
    """What a file system's driver raises, as an error that names the file."""
    try:
        yield
    except ImportError as e:
        raise CheckpointError(f"{quote(name)} cannot be {done}: {_said(e)}. Install what it asks for.") from e
    except FileNotFoundError as e:
        raise CheckpointError(f"{quote(name)} does not exist. Check the URL.") from e
    except PermissionError as e:
        raise CheckpointError(f"{quote(name)} may not be {done}: {_said(e)}. Check your credentials.") from e
    except (OSError, RuntimeError) as e:
        raise CheckpointError(f"{quote(name)} cannot be {done}: {_said(e)}. Check the network and try again.") from e
    except ValueError as e:
        raise CheckpointError(f"{quote(name)} cannot be {done}: {_said(e)}. Check the URL.") from e


def _said(error: Exception) -> str:
    return printable(str(error)) or type(error).__name__
