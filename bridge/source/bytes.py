"""Where bytes come from: `ByteSource`, and a file on the local disk."""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from bridge._errors import CheckpointError
from bridge._text import printable, quote

_VECTOR_LIMIT = max(16, os.sysconf("SC_IOV_MAX"))  # -1 where a system does not say; 16 is what POSIX grants
# A FIFO or a device must not hold up `open`; it is refused right after.
_OPEN_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
# Bytes between those that are wanted, as columns of a matrix have them, are read over or skipped. A request costs what
# reading some tens of kilobytes does, more on a network. So small gaps are read over, but never more than eight times
# what is needed, where a disk could read less: it reads whole pages.
_LONGEST = 64 << 10
_SHARE = 8
_PAGE = 4 << 10
_HELD_FILES = 32
_HELD_SHARE = 8  # one in so many of the descriptors that the process may have
_KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


@runtime_checkable
class ByteSource(Protocol):
    """One file's bytes, readable in any order from any thread."""

    @property
    def name(self) -> str:
        """What messages call it."""
        ...

    @property
    def nbytes(self) -> int:
        """Its length when it was opened."""
        ...

    @property
    def parallel(self) -> int | None:
        """How many reads at once serve it best, where each waits for an answer; None where the reader knows better."""
        ...

    @property
    def absent(self) -> bool:
        """Whether only its header is at hand, and the rest is to be fetched before it is read."""
        ...

    @property
    def gap_nbytes(self) -> int:
        """Bytes between two reads that are cheaper to read and throw away than a second read is."""
        ...

    def readinto(self, buffers: Sequence[memoryview], offset: int) -> None:
        """Fill all `buffers`, one after the other, from byte `offset` on.

        **Arguments:**

        - `buffers`: writable, C-contiguous, of any length, none included.
        - `offset`: in bytes from the start of the file.

        `CheckpointError` that names the file if they cannot be filled; their contents are then undefined.
        """
        ...

    def close(self) -> None:
        """Give back what the source holds. Reading is an error from then on; closing twice is none."""
        ...


class FileSource(Protocol):
    """What hands out the bytes of a file by its name."""

    def byte_source(self, file: str) -> ByteSource:
        """The bytes of one file, open as long as the checkpoint is."""
        ...


def held_files() -> int:
    """How many files may stay open: a checkpoint of hundreds must not use up what the process may have."""
    try:
        import resource  # not on every system
    except ImportError:
        return _HELD_FILES
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _HELD_FILES if soft < 0 else min(_HELD_FILES, soft // _HELD_SHARE)


def worth_skipping(gap_nbytes: int, run_nbytes: int) -> bool:
    """Whether gaps of `gap_nbytes` between runs of `run_nbytes` are worth a request for every run."""
    return gap_nbytes > max(_PAGE, min((_SHARE - 1) * run_nbytes, _LONGEST))


class LocalFile:
    """A regular file, read with `preadv`.

    A file that is replaced, rewritten or cut while it is in use is noticed at each read, by device, inode, length and
    times: who sets back the time of modification still changes that of the last change. So it is safe to give the
    descriptor back between reads (`hold=False`): a checkpoint may have more files than the process may have
    descriptors.
    """

    parallel: int | None = None
    gap_nbytes = 0
    absent = False

    def __init__(self, path: str | os.PathLike[str], name: str | None = None, *, hold: bool = True) -> None:
        """**Arguments:**

        - `path`: the file. Symbolic links are followed.
        - `name`: what messages call it, by default the path.
        - `hold`: keep the descriptor from read to read.

        `CheckpointError` if there is no such file, or it may not be read, or is no regular file.
        """
        self.path = os.fspath(path)
        self.name = self.path if name is None else name
        self._closed = False
        descriptor, status = _open(self.path, self.name)
        self._identity = _identity(status)
        self._change = _change(status)
        self._descriptor = descriptor if hold else None
        self.nbytes = status.st_size

    def readinto(self, buffers: Sequence[memoryview], offset: int) -> None:
        """Fill all `buffers` from byte `offset` on; `CheckpointError` if the file is not what it was or is cut off."""
        descriptor = self._acquire()
        try:
            for first in range(0, len(buffers), _VECTOR_LIMIT):
                part = buffers[first : first + _VECTOR_LIMIT]
                wanted = sum(b.nbytes for b in part)
                if _fill(descriptor.number, part, offset, wanted) < wanted:
                    self._check_unchanged(descriptor)
                    raise CheckpointError(
                        quote(self.name),
                        f"holds {self.nbytes:,} bytes, up to {offset + wanted:,} were to be read: it is cut off",
                        "Fetch it again",
                    )
                offset += wanted
            self._check_unchanged(descriptor)
        except OSError as e:
            raise CheckpointError(
                quote(self.name), f"cannot be read at byte {offset:,}: {_reason(e)}", "Check the disk and try again"
            ) from e

    def resident(self, offset: int) -> bool:
        """Whether the byte at `offset` is in memory already, as far as the system tells; True where it does not."""
        if not hasattr(os, "RWF_NOWAIT"):
            return True
        try:
            os.preadv(self._acquire().number, [bytearray(1)], offset, os.RWF_NOWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True  # a file system that cannot say
        return True

    def map(self) -> mmap.mmap:
        """The whole file as read-only memory, which outlives `close`; nothing is read before it is looked at.

        Only for files that are replaced by renaming: one that shrinks under a mapping ends the process.
        A `CheckpointError` if the file is not what it was.
        """
        descriptor = self._acquire()
        try:
            self._check_unchanged(descriptor)
            return mmap.mmap(descriptor.number, self.nbytes, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as e:
            raise CheckpointError(quote(self.name), f"cannot be mapped: {e}", "Load it with mmap=False") from e

    def close(self) -> None:
        """Give the descriptor back, after the reads of other threads that are under way."""
        self._closed = True
        self._descriptor = None

    def _is_only(self, status: os.stat_result) -> bool:
        """Whether the file was only linked, given another mode or owner, or moved away: its bytes are what they were.

        All of that is honest: the next save over a checkpoint takes the names of the files that are being read.
        """
        before, self._change = self._change, _change(status)
        if before[1:] != self._change[1:]:
            return True
        try:
            there = os.stat(self.path)
        except OSError:
            return True
        return (there.st_dev, there.st_ino) != self._identity[:2]

    def __repr__(self) -> str:
        return f"LocalFile({self.name!r}, nbytes={self.nbytes})"

    def _acquire(self) -> _SharedDescriptor:
        descriptor = self._descriptor
        if self._closed:
            raise CheckpointError(quote(self.name), "is closed", "Open the checkpoint again")
        # Who holds the object holds the descriptor open, so close() in another thread cannot pull it from under a read.
        return _open(self.path, self.name)[0] if descriptor is None else descriptor

    def _check_unchanged(self, descriptor: _SharedDescriptor) -> None:
        status = os.fstat(descriptor.number)
        if _identity(status) == self._identity and (status.st_ctime_ns == self._change[0] or self._is_only(status)):
            return
        now = (
            f"it held {self.nbytes:,} bytes, now {status.st_size:,}" if status.st_size != self.nbytes else "it is newer"
        )
        raise CheckpointError(
            quote(self.name), f"has changed since it was opened: {now}", "Open the checkpoint again once it is complete"
        )


class _SharedDescriptor:
    """A file descriptor that closes with the last reference to it."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        close(self.number)  # at the interpreter's end the module's own names are gone already


def _open(path: str, name: str) -> tuple[_SharedDescriptor, os.stat_result]:
    try:
        found = _irregular(os.stat(path))  # opening a device can already do something
        if found is None:
            descriptor = _SharedDescriptor(os.open(path, _OPEN_FLAGS))
            status = os.fstat(descriptor.number)
            found = _irregular(status)
            if found is None:
                return descriptor, status
    except FileNotFoundError as e:
        if os.path.islink(path):
            to = quote(os.readlink(path))
            raise CheckpointError(
                quote(name), f"is a link to {to}, which does not exist", "Fetch the file again"
            ) from e
        advice = "Check its name; if it was being fetched, fetch it again"
        raise CheckpointError(quote(name), "does not exist", advice) from e
    except PermissionError as e:
        raise CheckpointError(quote(name), "may not be read: permission denied", "Check its owner and mode") from e
    except OSError as e:
        raise CheckpointError(quote(name), f"cannot be opened: {_reason(e)}", "Check its name and its disk") from e
    except ValueError as e:  # a NUL, or a surrogate that the file system cannot encode
        raise CheckpointError(quote(name), f"is not a file name: {printable(str(e))}", "Check its spelling") from e
    raise CheckpointError(quote(name), f"is {found}, not a file", "Name a regular file, or the folder that holds it")


def _irregular(status: os.stat_result) -> str | None:
    """What lies there, if it is no regular file."""
    if stat.S_ISREG(status.st_mode):
        return None
    return next((text for test, text in _KINDS if test(status.st_mode)), "something else")


def _identity(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _change(status: os.stat_result) -> tuple[int, ...]:
    """When anything of a file was changed last, and what can change without its bytes."""
    return status.st_ctime_ns, status.st_nlink, status.st_mode, status.st_uid, status.st_gid


def _fill(descriptor: int, buffers: Sequence[memoryview], offset: int, wanted: int) -> int:
    """Fill `buffers`, `wanted` bytes in all; the count that came, less only at the end of the file."""
    done = 0
    while done < wanted:
        # One call moves at most about 2 GiB, and on some file systems less.
        got = os.preadv(descriptor, buffers if done == 0 else _after(buffers, done), offset + done)
        if got == 0:
            break
        done += got
    return done


def _after(buffers: Sequence[memoryview], done: int) -> list[memoryview]:
    """What is left of `buffers` when their first `done` bytes are filled."""
    rest: list[memoryview] = []
    for buffer in buffers:
        if done < buffer.nbytes:
            rest.append(buffer.cast("B")[done:] if done else buffer)
        done = max(0, done - buffer.nbytes)
    return rest


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__
