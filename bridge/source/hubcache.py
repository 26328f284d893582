"""The Hub's cache on this machine: huggingface_hub's layout, shared with every other tool.

    models--org--name/refs/main                       the commit that a revision stood for
    models--org--name/snapshots/COMMIT/x.safetensors  a file; a link to its blob
    models--org--name/blobs/SHA256                    its bytes
    models--org--name/eqx-bridge/COMMIT/x.safetensors.head    ours: a header that was read without its file

A header is a few kilobytes and says what a file holds: kept, it lets a load that needed few of a repo's files work
again without the network. It goes when the repo is removed from the cache.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

from bridge.format.header import MAX_HEADER_NBYTES

_COMMIT = re.compile(r"[0-9a-f]{40}", re.ASCII)
_OURS, _HEAD = "eqx-bridge", ".head"


@dataclass(frozen=True, slots=True)
class HubCache:
    """The part of the cache that belongs to one repo: the folder `root`."""

    root: str

    @classmethod
    def of(cls, repo: str, kind: str, cache_dir: str | None) -> HubCache:
        """The repo's folder in `cache_dir`, by default where huggingface_hub keeps its cache."""
        from huggingface_hub import constants  # only those who use the Hub wait for it

        folder = os.path.expanduser(cache_dir or constants.HF_HUB_CACHE)
        return cls(os.path.join(folder, "--".join([f"{kind}s", *repo.split("/")])))

    def commit(self, revision: str | None) -> str | None:
        """The commit that `revision` stood for when it was last asked for, if anything of that commit is here."""
        name = revision or "main"
        if not _COMMIT.fullmatch(name):
            name = self._ref(name)
        known = name and any(os.path.isdir(os.path.join(self.root, part, name)) for part in ("snapshots", _OURS))
        return name if known else None

    def _ref(self, revision: str) -> str | None:
        if ".." in revision.split("/"):
            return None
        try:
            with open(os.path.join(self.root, "refs", revision), encoding="ascii") as file:
                found = file.read(64).strip()
        except (OSError, ValueError):
            return None
        return found if _COMMIT.fullmatch(found) else None

    def note(self, revision: str | None, commit: str) -> None:
        """Remember what a revision stands for, as huggingface_hub does: other tools look there when offline."""
        name = revision or "main"
        if name != commit and ".." not in name.split("/") and self._ref(name) != commit:
            _write(os.path.join(self.root, "refs", name), commit.encode())

    def path(self, commit: str, name: str) -> str | None:
        """Where a file lies, if it is here."""
        path = os.path.join(self.root, "snapshots", commit, name)
        return path if os.path.isfile(path) else None

    def names(self, commit: str) -> Iterator[str]:
        """The files of a commit that are here, whole or with their header."""
        snapshot, ours = (os.path.join(self.root, part, commit) for part in ("snapshots", _OURS))
        yield from _below(snapshot)
        yield from (name.removesuffix(_HEAD) for name in _below(ours) if name.endswith(_HEAD))

    def head(self, commit: str, name: str) -> tuple[int, bytes] | None:
        """The length of a file and its first bytes, the header whole, if they were kept."""
        try:
            with open(self._head_path(commit, name), "rb") as file:
                raw = file.read(MAX_HEADER_NBYTES + 16)
        except (OSError, ValueError):
            return None
        return (int.from_bytes(raw[:8], "little"), raw[8:]) if len(raw) > 16 else None

    def keep_head(self, commit: str, name: str, nbytes: int, head: bytes) -> None:
        """Keep a header. A cache that cannot be written to does without."""
        _write(self._head_path(commit, name), nbytes.to_bytes(8, "little") + head)

    def partial_nbytes(self) -> tuple[int, ...]:
        """How far downloads of any process have got."""
        try:
            with os.scandir(os.path.join(self.root, "blobs")) as entries:
                return tuple(sorted(e.stat().st_size for e in entries if e.name.endswith(".incomplete")))
        except OSError:  # there is none yet, or one was finished while it was looked at
            return ()

    def _head_path(self, commit: str, name: str) -> str:
        return os.path.join(self.root, _OURS, commit, name + _HEAD)


def _below(folder: str) -> Iterator[str]:
    for place, _, names in os.walk(folder):
        for name in names:
            yield os.path.relpath(os.path.join(place, name), folder).replace(os.sep, "/")


def _write(path: str, content: bytes) -> None:
    """Write a small file whole or not at all."""
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        draft = f"{path}.{os.getpid()}.tmp"
        with open(draft, "wb") as file:
            file.write(content)
        os.replace(draft, path)
    except OSError:
        pass  # a cache that may only be read: whoever comes next asks the Hub again
