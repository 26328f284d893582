"""A folder inside the target to write to, `.eqx-bridge-…`, locked while its writer lives.

    .lock       held by the writer: who can take it knows that the writer is no more
    .journal    which files a commit replaces and which it brings, by inode
    …           the new files

What a killed writer left, the next one removes: this folder, and after a commit cut short whatever does not count.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bridge.target.explain import explained
from bridge.target.interrupts import DeferredInterrupts, LetThrough
from bridge.target.journal import recover

_PREFIX = ".eqx-bridge-"
_LOCK = ".lock"


@dataclass(frozen=True, slots=True)
class Stage:
    """Where new files are written. `token` tells its names from those of a writer that is at work beside it, if any."""

    path: Path
    token: str
    interrupts: DeferredInterrupts

    def interruptible(self) -> LetThrough:
        """Where the long work is done: an interrupt arrives at once, and then all is cleared."""
        return self.interrupts.let_through()

    def free_name(self, name: str) -> str:
        """`name`, or one like it that nothing in the folder has, nor another writer will."""
        stem, suffix = os.path.splitext(name)
        stem = f"{stem}-{self.token}" if self.token else stem
        number, free = 0, stem + suffix
        while os.path.lexists(self.path.parent / free):
            number += 1
            free = f"{stem}-{number}{suffix}"
        return free


@contextmanager
def staged(folder: Path) -> Iterator[Stage]:
    """Make `folder` if need be, and in it a folder to write to, which is gone afterwards whatever happened.

    Interrupts wait in it, but for what is within `Stage.interruptible`.

    **Raises:** `SaveError`.
    """
    with DeferredInterrupts() as interrupts:
        made = [path for path in (folder, *folder.parents) if not path.exists()]
        try:
            with explained(folder, "cannot be written to"):
                folder.mkdir(parents=True, exist_ok=True)
                stage, lock = _make(folder, interrupts)
            try:
                yield stage
            finally:
                _clear(stage.path)
                os.close(lock)
        except BaseException:
            for path in made:
                try:
                    path.rmdir()
                except OSError:
                    break  # somebody else uses it already
            raise


def _make(folder: Path, interrupts: DeferredInterrupts) -> tuple[Stage, int]:
    token = secrets.token_hex(8)
    path = folder / f"{_PREFIX}{token}"
    with folder_lock(folder):
        crowded = _sweep(folder)
        path.mkdir()
        lock = os.open(path / _LOCK, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
    return Stage(path, token if crowded else "", interrupts), lock


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """One writer at a time: while a stage is made or committed, nobody else does so in this folder.

    For those who hold interrupts back: a lock that stayed behind would lock out the next save of the same process.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError:
            pass  # a network disk that locks no folders: each commit is one rename all the same
        yield
    finally:
        os.close(descriptor)


def sweep(folder: Path) -> None:
    """Remove what writers left in `folder` that are no more. **Raises:** `SaveError`."""
    if folder.is_dir() and any(folder.glob(f"{_PREFIX}*")):
        with DeferredInterrupts(), explained(folder, "cannot be tidied up"), folder_lock(folder):
            _sweep(folder)


def _sweep(folder: Path) -> bool:
    """Remove what dead writers left; returns whether one lives."""
    alive = False
    for stage in folder.glob(f"{_PREFIX}*"):
        try:
            lock = os.open(stage / _LOCK, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            _clear(stage)  # who makes one holds the folder's lock: this one was never finished
            continue
        except OSError:
            alive = True  # another user's
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            alive = True
        else:
            _clear(stage)
        finally:
            os.close(lock)
    return alive


def _clear(stage: Path) -> None:
    try:
        recover(stage)
        shutil.rmtree(stage)
    except OSError:
        pass  # nothing reads what is left of it, and the next writer tries again
