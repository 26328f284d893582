"""Processes that do one thing together: what each has come to, and whether it is still alive.

For saving, which ends in one commit. Nobody waits for a process that is no more: each gives a sign of life every
second, and whoever waits for one that has stopped doing so gets an error.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Sequence
from itertools import count
from typing import Self

import jax

from bridge._errors import BridgeError, SaveError
from bridge.place.coordination import Coordination, UnreachableError

PATIENCE = 30.0
"""Seconds without a sign of life after which a process counts as dead."""
LATENESS = 600.0
"""Seconds that a process may come later than the others. One that died before is noticed by JAX, after 100 s."""
_FIRST_LOOK, _LAST_LOOK = 0.01, 0.5
_UNTOUCHED = "the target is as it was"
_EITHER = "it was to commit, and the target is the old checkpoint or the new one, whole"
_before: dict[tuple[int, ...], list[int]] = {}
"""By who takes part, the numbers of saves whose words may still stand; the last is the next one's."""


class SaveGroup:
    """One of the processes of one save, as the others see it.

    The n-th save of the same processes is the same one for all of them: every one of them has to call `save`. Leaving
    it with an error tells the others.
    """

    def __init__(self, processes: Sequence[int]) -> None:
        """**Raises:** `SaveError` where this process is none of them, or there is nothing to agree by."""
        self.me, self.processes = jax.process_index(), tuple(processes)
        if self.me not in self.processes:
            raise SaveError(
                f"process {self.me}",
                "has no part of this model",
                f"Call save only in the processes that do ({', '.join(map(str, self.processes))})",
            )
        service = Coordination.found()
        if service is None:
            raise SaveError(
                "the model",
                "is spread over several processes that have no way to agree on a file",
                "Call jax.distributed.initialize() when they start",
            )
        self.service = service
        self.before = _before.setdefault(self.processes, [0])
        group = hashlib.sha256(str(self.processes).encode()).hexdigest()[:16]
        self.folder = f"bridge/save/{group}/{self.before[-1]}"
        self.before.append(self.before[-1] + 1)
        self.told = False  # of an error that the others know of
        self.stopped = threading.Event()
        self.beating = threading.Thread(target=self._beat, name="bridge-save-alive", daemon=True)

    @property
    def is_leader(self) -> bool:
        """Whether this process is the one that commits."""
        return self.me == self.processes[0]

    def __enter__(self) -> Self:
        self.beating.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self.stopped.set()
        self.beating.join()
        if error is not None and not self.told:
            said = (error.statement, error.advice) if isinstance(error, BridgeError) else (_raised(error), None)
            try:
                self.service.put(f"{self.folder}/{self.me}/failed", json.dumps(said))
            except UnreachableError:
                pass  # then the others cannot be reached by anything

    def all_are_here(self) -> None:
        """Everybody has come, and so has left the saves before: what was said there can go."""
        group = self.folder.rpartition("/")[0]
        try:
            for number in self.before[:-2]:
                self.service.remove(f"{group}/{number}/{self.me}")
        except UnreachableError as error:
            raise self._unreachable(error) from error
        del self.before[:-2]

    def post(self, topic: str, text: str = "") -> None:
        """Tell the others that this process has come to `topic`. **Raises:** `SaveError`."""
        try:
            self.service.put(f"{self.folder}/{self.me}/{topic}", text)
        except UnreachableError as error:
            raise self._unreachable(error) from error

    def wait_for(self, topic: str, process: int) -> str:
        """What a process says when it has come to `topic`.

        **Raises:** `SaveError` where that or another one has failed, has died, or has never come.
        """
        # Pauses are added up, no clock is read: a program that was stopped for a while has missed nothing.
        waited = silent = 0.0
        pause, last = _FIRST_LOOK, None
        while True:
            words = self._words()
            if f"{process}/{topic}" in words:
                return words[f"{process}/{topic}"]
            for other in self.processes:
                if f"{other}/failed" in words and other != self.me:
                    self.told = True
                    statement, advice = json.loads(words[f"{other}/failed"])
                    raise SaveError(
                        f"process {other}", f"could not save its part: {statement}", advice or "See its log"
                    )
            alive = words.get(f"{process}/alive")
            silent = 0.0 if alive != last else silent
            last = alive
            if alive is None and waited > LATENESS:
                raise SaveError(
                    f"process {process}",
                    f"has not called save within {LATENESS:g} s; {_UNTOUCHED}",
                    f"Call save in every process that has part of the model ({', '.join(map(str, self.processes))})",
                )
            if alive is not None and silent > PATIENCE:
                raise SaveError(
                    f"process {process}",
                    (
                        f"has sent no heartbeat for {PATIENCE:g} s while saving; "
                        f"{_EITHER if process == self.processes[0] else _UNTOUCHED}"
                    ),
                    "Check its log",
                )
            time.sleep(pause)
            waited, silent = waited + pause, silent + pause
            pause = min(1.2 * pause, _LAST_LOOK)

    def wait_for_all(self, topic: str) -> dict[int, str]:
        """What each of the others says when it has come to `topic`. **Raises:** as `wait_for`."""
        return {process: self.wait_for(topic, process) for process in self.processes if process != self.me}

    def _words(self) -> dict[str, str]:
        try:
            return self.service.below(self.folder)
        except UnreachableError as error:
            raise self._unreachable(error) from error

    def _beat(self) -> None:
        for beat in count():
            try:
                self.service.put(f"{self.folder}/{self.me}/alive", str(beat))
            except UnreachableError:
                return  # whoever works in this process notices too
            if self.stopped.wait(1.0):
                return

    @staticmethod
    def _unreachable(error: UnreachableError) -> SaveError:
        return SaveError(
            "the processes that save together",
            f"cannot reach each other, JAX says: {error}",
            "See whether process 0 still runs",
        )


def _raised(error: BaseException) -> str:
    """An error of somebody else's in one line."""
    return f"{type(error).__name__}: {error}"
