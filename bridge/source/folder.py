"""Where a checkpoint's files lie together: a local directory, or files listed one by one."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Protocol

from bridge._errors import CheckpointError
from bridge._text import quote
from bridge.source.bytes import ByteSource, LocalFile


class Folder(Protocol):
    """Named files. A new kind of store implements this and is done."""

    @property
    def label(self) -> str:
        """What messages call the place: `my-model/`."""
        ...

    def names(self) -> Sequence[str]:
        """The names of the files that lie directly in it, sorted."""
        ...

    def below(self) -> Sequence[str]:
        """The files one folder further down, `unet/x.safetensors`, sorted, as far as the store lists them."""
        ...

    def has(self, name: str) -> bool:
        """Whether there is such a file, in it or below."""
        ...

    def open(self, name: str, *, hold: bool = True) -> ByteSource:
        """Open one file; `CheckpointError` if that fails. `hold=False`: keep no descriptor between reads."""
        ...

    def sha256(self, name: str) -> str | None:
        """The sha256 that the store itself vouches for, 64 hex digits; None where it knows none."""
        ...


class LocalFolder:
    """A directory."""

    def __init__(self, path: str, label: str | None = None) -> None:
        self.path = path
        self.label = os.path.join(path if label is None else label, "")

    def names(self) -> Sequence[str]:
        """All but directories, sorted."""
        try:
            with os.scandir(self.path) as entries:
                return sorted(entry.name for entry in entries if not _is_directory(entry))
        except OSError as e:
            raise CheckpointError(
                quote(self.label), f"cannot be listed: {e.strerror or type(e).__name__}", "Check its owner and mode"
            ) from e
        except ValueError as e:  # a NUL, or a surrogate that the file system cannot encode
            raise CheckpointError(quote(self.label), "is not a folder name", "Check its spelling") from e

    def below(self) -> Sequence[str]:
        """Those that may be listed."""
        found: list[str] = []
        for place, folders, names in os.walk(self.path):  # passes over what may not be listed
            if place != self.path:
                folders.clear()
                found += [f"{os.path.relpath(place, self.path)}/{name}" for name in names]
        return sorted(found)

    def has(self, name: str) -> bool:
        """Whether there is a regular file of that name."""
        return os.path.isfile(os.path.join(self.path, name))

    def open(self, name: str, *, hold: bool = True) -> LocalFile:
        """Open one file."""
        return LocalFile(os.path.join(self.path, name), os.path.join(self.label, name), hold=hold)

    def sha256(self, name: str) -> str | None:
        """What the Hub's cache says, where the file is one of its links."""
        return cached_sha256(os.path.join(self.path, name))


class LocalFiles:
    """Files listed one by one, wherever they lie."""

    def __init__(self, paths: Mapping[str, str], label: str) -> None:
        self.label = label
        self._paths = paths

    def names(self) -> Sequence[str]:
        """The names in the list."""
        return list(self._paths)

    def below(self) -> Sequence[str]:
        """None: the list names files."""
        return ()

    def has(self, name: str) -> bool:
        """Whether a file of the list, or beside one, has that name."""
        return os.path.isfile(self._path(name))

    def open(self, name: str, *, hold: bool = True) -> LocalFile:
        """Open one file."""
        return LocalFile(self._path(name), hold=hold)

    def sha256(self, name: str) -> str | None:
        """What the Hub's cache says, where the file is one of its links."""
        return cached_sha256(self._path(name))

    def _path(self, name: str) -> str:
        # A checksum's file lies beside the file it belongs to.
        stem, suffix = (name[: -len(".sha256")], ".sha256") if name.endswith(".sha256") else (name, "")
        if stem not in self._paths:
            return os.path.join(os.path.dirname(next(iter(self._paths.values()))), name)
        return self._paths[stem] + suffix


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # a link in a circle, say: whoever opens it is told


def cached_sha256(path: str) -> str | None:
    """What the Hub's cache says about a file: there, a link leads to a blob that is named by its sha256."""
    name = os.path.basename(os.path.realpath(path)) if os.path.islink(path) else ""
    return name if len(name) == 64 and set(name) <= set("0123456789abcdef") else None
