"""Trying again: what may pass is tried a few times, what a server asks to wait for is waited for, within bounds."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from bridge._errors import CheckpointError
from bridge._text import printable

T = TypeVar("T")
WAITS = (0.5, 1.0, 2.0, 4.0)
"""Seconds between one try and the next, as long as nothing new has come in between."""
LONGEST_WAIT = 60.0
"""Seconds that a server may ask to wait, over all tries of one read; who asks for more is not waited for."""


class PassingError(Exception):
    """A failure that may pass: a connection lost, a server too busy.

    `after`: seconds that the server asks to wait; None where it does not say. `problem` and `advice` end the message
    that the user gets if it does not pass.
    """

    def __init__(self, problem: str, *, after: float | None = None, advice: str | None = None) -> None:
        super().__init__(problem)
        self.problem = printable(problem)
        self.after = after
        self.advice = advice or "Check the network and try again"


class Tries:
    """The tries of one piece of work."""

    def __init__(self, subject: str, problem: str, waits: Sequence[float] | None = None) -> None:
        """**Arguments:**

        - `subject`, `problem`: how the message begins if none succeeds: `'x'`, `cannot be read at byte 8`.
        - `waits`: other seconds than `WAITS`.
        """
        self._subject, self._problem = subject, problem
        self._waits = WAITS if waits is None else waits
        self._failed = 0
        self._patience = LONGEST_WAIT

    def again(self, failure: PassingError, *, moved: bool = False) -> None:
        """Wait before the next try.

        **Arguments:** `moved`: whether bytes have come since the last failure: the count begins anew then.

        **Raises:** `CheckpointError` where it has been tried often enough, or the server asks for too long a wait.
        """
        self._failed = 0 if moved else self._failed
        if failure.after is not None and failure.after > self._patience:
            raise CheckpointError(
                self._subject,
                f"{self._problem}: {failure.problem}, and asks to wait {failure.after:.0f} s",
                failure.advice,
            ) from failure
        if self._failed == len(self._waits):
            raise CheckpointError(self._subject, f"{self._problem}: {failure.problem}", failure.advice) from failure
        wait = self._waits[self._failed] if failure.after is None else failure.after
        self._patience -= failure.after or 0.0
        self._failed += 1
        time.sleep(wait)

    def run(self, work: Callable[[], T]) -> T:
        """`work`, until it succeeds or the tries are used up."""
        while True:
            try:
                return work()
            except PassingError as failure:
                self.again(failure)


def seconds(retry_after: str | None) -> float | None:
    """A Retry-After header in seconds; None where it is absent, or a date."""
    text = (retry_after or "").strip()
    return float(text) if text.isascii() and text.isdigit() and len(text) < 10 else None
