"""Ctrl-C, held back for a moment: while names change and locks are taken, half of it would stay behind.

A notebook goes on after an interrupt, and keeps the frames that it cut short. So nothing here is left to them: what is
begun is finished, and then the interrupt arrives.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self


class DeferredInterrupts:
    """Interrupts that come inside wait for the end. Interrupts reach the main thread alone; in others nothing changes.

    ```python
    with DeferredInterrupts() as interrupts:
        ...  # they wait
        with interrupts.let_through():
            ...  # they arrive at once
    ```
    """

    def __init__(self) -> None:
        self._handler: Callable[[int, FrameType | None], Any] | None = None
        self._came: tuple[int, FrameType | None] | None = None

    def __enter__(self) -> Self:
        handler = signal.getsignal(signal.SIGINT) if threading.current_thread() is threading.main_thread() else None
        self._handler = handler if callable(handler) else None
        self.hold()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
        if not isinstance(error, KeyboardInterrupt):
            self.raise_held()

    def let_through(self) -> LetThrough:
        """A part inside in which interrupts arrive at once, those too that have been waiting."""
        return LetThrough(self)

    def hold(self) -> None:
        """Have them wait."""
        if self._handler is not None:
            signal.signal(signal.SIGINT, self._note)

    def release(self) -> None:
        """Have them go where they went before."""
        if self._handler is not None:
            signal.signal(signal.SIGINT, self._handler)

    def raise_held(self) -> None:
        """Hand on what has come meanwhile."""
        came, self._came = self._came, None
        if came is not None and self._handler is not None:
            self._handler(*came)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._came = number, frame


class LetThrough:
    """What `DeferredInterrupts.let_through` returns. A generator that is cut short would run its end at any time."""

    def __init__(self, held: DeferredInterrupts) -> None:
        self._held = held

    def __enter__(self) -> None:
        self._held.release()
        self._held.raise_held()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.hold()


class Descriptor:
    """An open file's `number`. It is closed at the end of its block, and wherever an interrupt drops it."""

    __slots__ = ("number",)

    def __init__(self, path: Path, flags: int) -> None:
        self.number = -1
        try:
            with DeferredInterrupts():  # else the number could be lost before it is known
                self.number = os.open(path, flags | os.O_CLOEXEC, 0o666)
        except BaseException:  # an interrupt that has waited: nobody else knows of this yet
            self.close()
            raise

    def close(self) -> None:
        """Give it back; twice is no error."""
        with DeferredInterrupts():
            number, self.number = self.number, -1
            if number >= 0:
                os.close(number)

    def __enter__(self) -> int:
        return self.number

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        if self.number >= 0:
            close(self.number)
