"""An `OSError` said as a colleague would: which path, what went wrong, and what stands there now."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bridge._errors import SaveError
from bridge._text import quote
from bridge.target.interrupts import Descriptor

UNCHANGED = ("nothing there has changed", "Make room, or name another place")


@contextmanager
def explained(path: str | os.PathLike[str], problem: str, then: tuple[str, str] = UNCHANGED) -> Iterator[None]:
    """Turn an `OSError` into a `SaveError`.

    **Arguments:**

    - `path`: what the message names first.
    - `problem`: what did not work, as in "cannot be written".
    - `then`: what is the case now, and what to do.
    """
    try:
        yield
    except SaveError:
        raise
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise SaveError(quote(str(path)), f"{problem}: {reason}; {then[0]}", then[1]) from error


def sync(path: Path) -> None:
    """Have the disk hold what was written before a rename speaks of it."""
    with Descriptor(path, os.O_RDONLY) as descriptor:
        os.fsync(descriptor)
