"""New files under names of their own, then one rename. Before it the target is the old checkpoint, after it the new one.

    staged/            a folder inside the target, `.eqx-bridge-…`, locked while its writer lives
    files move out     under names that nothing has
    one rename         of the index, or of the only file: this commits
    old files go       those that the old checkpoint named

What a killed writer leaves is such a folder, which nothing reads and the next save removes, or old files that the new index
does not name.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from bridge._errors import BridgeError, SaveError
from bridge._text import quote
from bridge.format.header import read_header
from bridge.format.index import parse_index
from bridge.format.native import BESIDE
from bridge.source.bytes import LocalFile

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
_STAGE = ".eqx-bridge-"
_LOCK = "lock"
_BESIDE_NAME = re.compile(r"(bridge(-\d+)?\.json)|(original(-\d+)?\.safetensors)")


class Target:
    """A folder, or one file, to write a checkpoint to."""

    def __init__(self, target: str | os.PathLike[str], *, overwrite: bool) -> None:
        """**Arguments:**

        - `target`: a folder, made if need be; a name that ends in `.safetensors` is one file.
        - `overwrite`: whether what stands there may be replaced.

        **Raises:** `SaveError` if something stands there and may not be replaced, or it is no place for a checkpoint.
        """
        self.path = Path(target)
        self.single = self.path.suffix == ".safetensors"
        self.folder = self.path.parent if self.single else self.path
        with explained(self.path, "cannot be looked at"):
            standing = self.path.exists() if self.single else bool(self.standing())
            if self.path.exists() and self.single == self.path.is_dir():
                kind = "a folder" if self.single else "a file"
                raise SaveError(f"{quote(str(target))} is {kind}: name a folder, or a file that ends in '.safetensors'")
        if standing and not overwrite:
            raise SaveError(f"{quote(str(target))} holds a checkpoint already: name another place, or give overwrite=True")

    def standing(self) -> list[str]:
        """The files of the checkpoint that stands in the folder: what its index names, or `model.safetensors`."""
        if self.single:
            return [self.path.name] if self.path.exists() else []
        if not self.folder.is_dir():
            return []
        found = [name for name in (INDEX, SINGLE) if (self.folder / name).is_file()]
        if INDEX in found:
            try:
                listed = parse_index((self.folder / INDEX).read_bytes(), name=INDEX).files
            except BridgeError:
                listed = ()  # an index that nobody can read names no files that could be lost
            found += [name for name in listed if name not in found and (self.folder / name).is_file()]
        if SINGLE in found:
            found += [name for name in _beside(self.folder / SINGLE) if (self.folder / name).is_file()]
        return found

    @contextmanager
    def staged(self) -> Iterator[Path]:
        """A folder of its own to write to, on the target's disk. It is gone afterwards, whatever happened."""
        with explained(self.folder, "cannot be written to"):
            self.folder.mkdir(parents=True, exist_ok=True)
            _sweep(self.folder)
            stage = self.folder / f"{_STAGE}{secrets.token_hex(8)}"
            stage.mkdir()
            lock = os.open(stage / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield stage
        finally:
            shutil.rmtree(stage, ignore_errors=True)
            os.close(lock)

    def free_name(self, name: str) -> str:
        """`name`, or one like it that nothing in the folder has."""
        stem, suffix = os.path.splitext(name)
        number, free = 0, name
        while (self.folder / free).exists():
            number += 1
            free = f"{stem}-{number}{suffix}"
        return free

    def names(self, count: int) -> list[str]:
        """Names for `count` files that nothing in the folder has; one file alone may take the standing one's place."""
        if self.single:
            return [self.path.name]
        if count == 1 and not (INDEX in (standing := self.standing()) and SINGLE in standing):
            return [SINGLE]
        return [self.free_name(f"model-{n + 1:05}-of-{count:05}.safetensors") for n in range(count)]

    def commit(self, stage: Path, files: Sequence[str], deciding: str) -> None:
        """Move `files` out of `stage` and make the checkpoint the new one by moving `deciding` last.

        **Arguments:**

        - `files`: names in `stage` that nothing in the folder has.
        - `deciding`: the name in `stage` whose move commits: the index, or the only file.
        """
        with explained(self.path, "cannot be written to"):
            old = self.standing()
            for name in (*files, deciding):
                _sync(stage / name)
            for name in files:
                os.rename(stage / name, self.folder / name)
            _sync(self.folder)
            final = self.path if self.single else self.folder / deciding
            if deciding == SINGLE and not self.single and (self.folder / INDEX).exists():
                # The old index decides as long as it is there: the new file takes its place beside it, and
                # moving the index away is what commits.
                os.replace(stage / deciding, final)
                os.rename(self.folder / INDEX, stage / "old-index")
            else:
                os.replace(stage / deciding, final)
            _sync(self.folder)
            kept = {*files, final.name}
            for name in old:
                if name not in kept:
                    with suppress(FileNotFoundError):
                        os.unlink(self.folder / name)


def _beside(path: Path) -> list[str]:
    """What a converted file keeps beside it. Only names that convert gives: a file may say anything."""
    try:
        source = LocalFile(path)
        try:
            names = json.loads(read_header(source).metadata.get(BESIDE, "[]"))
        finally:
            source.close()
    except (BridgeError, ValueError):
        return []  # no such file can be what convert wrote
    listed = names if isinstance(names, list) else []
    return [name for name in listed if isinstance(name, str) and _BESIDE_NAME.fullmatch(name)]


def _sweep(folder: Path) -> None:
    """Remove what writers left that are no more: their lock is free."""
    for stage in folder.glob(f"{_STAGE}*"):
        try:
            lock = os.open(stage / _LOCK, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            continue  # not ours, or just being made
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(stage, ignore_errors=True)
        except BlockingIOError:
            pass  # its writer lives
        finally:
            os.close(lock)


def _sync(path: Path) -> None:
    """Have the disk hold what was written before a rename speaks of it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def explained(path: Path, problem: str) -> Iterator[None]:
    """Turn an `OSError` into a `SaveError` that names the path and what to do."""
    try:
        yield
    except SaveError:
        raise
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise SaveError(f"{quote(str(path))} {problem}: {reason}. Nothing there has changed; make room, or name another place") from error
