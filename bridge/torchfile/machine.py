"""The stack machine that a pickle is written for, with a closed list of meanings. Nothing is imported or called."""

from __future__ import annotations

from typing import Any, NoReturn

from bridge._errors import CheckpointError
from bridge._text import quote
from bridge.torchfile.dangerous import named
from bridge.torchfile.limits import FREE_COPIED_NBYTES, MAX_COPIED_NBYTES, MAX_GLOBALS, MAX_MEMO, MAX_OPCODES
from bridge.torchfile.opcodes import OPCODES
from bridge.torchfile.tape import Tape
from bridge.torchfile.tokens import Global, Storage

_STOP = b"."[0]


class Machine:
    """Interprets the pickles of one file, one after the other.

    - `position`: of the next byte, counted from the start of the tape.
    - `stack`, `below`: what lies above the last mark, and what lies below each of the marks.
    - `storages`: every storage that a pickle spoke of, by its key.
    """

    def __init__(self, tape: Tape) -> None:
        """**Arguments:** the pickle, or several in a row."""
        self.name, self.tape, self.data = quote(tape.source.name), tape, tape.data
        self.position, self.held = 0, len(tape.data)
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.globals: dict[tuple[str, str], Global] = {}
        self.storages: dict[str, Storage] = {}
        self._left, self._copied = MAX_OPCODES, 0

    def run(self) -> Any:
        """The value of the next pickle. `CheckpointError` if it is damaged, costs too much, or is not harmless."""
        self.stack, self.below, self.memo = [], [], {}
        data = self.data
        try:
            for used in range(self._left):
                position = self.position
                if position >= self.held:
                    self.held = self.tape.reach(position + 1)
                opcode = data[position]
                self.position = position + 1
                if opcode == _STOP:
                    self._left -= used
                    return self.stack.pop()
                handler = OPCODES[opcode]
                if handler is None:
                    raise CheckpointError(
                        self.name,
                        f"has opcode 0x{opcode:02x} at byte {position:,} of its pickle, which torch.save never writes",
                        "Fetch it again: it is damaged, or made by hand",
                    )
                handler(self)
        except IndexError:  # the stack has too little on it
            self.damaged("an opcode that takes a value that is not there")
        self._too_many(MAX_OPCODES, "opcodes")

    def take(self, nbytes: int) -> bytearray:
        """The next bytes."""
        start = self.position
        stop = start + nbytes
        if stop > self.held:
            self.held = self.tape.reach(stop)
        self.position = stop
        return self.data[start:stop]

    def byte(self) -> int:
        """The next byte."""
        position = self.position
        if position >= self.held:
            self.held = self.tape.reach(position + 1)
        self.position = position + 1
        return self.data[position]

    def unsigned(self, nbytes: int) -> int:
        """The next bytes as a number, the lowest first."""
        start = self.position
        stop = start + nbytes
        if stop > self.held:
            self.held = self.tape.reach(stop)
        self.position = stop
        return int.from_bytes(self.data[start:stop], "little")

    def line(self, limit: int) -> bytearray:
        """The next bytes up to the end of the line, of which there may be `limit`."""
        start = self.position
        stop = self.data.find(b"\n", start, start + limit + 1)
        if stop < 0 and self.held < start + limit + 1:
            room = self.tape.stop - self.tape.start
            self.held = self.tape.reach(min(start + limit + 1, max(room, start + 1)))
            stop = self.data.find(b"\n", start, start + limit + 1)
        if stop < 0:
            self.damaged(f"a line of more than {limit:,} bytes")
        self.position = stop + 1
        return self.data[start:stop]

    def marked(self) -> list[Any]:
        """What lies above the last mark, which goes."""
        items = self.stack
        self.stack = self.below.pop()
        return items

    def keep(self, number: int) -> None:
        """Put what is uppermost on the stack into the memo."""
        memo = self.memo
        memo[number] = self.stack[-1]
        if len(memo) > MAX_MEMO:
            self._too_many(MAX_MEMO, "values kept")

    def refer(self, module: str, name: str) -> Global:
        """The token of a class or function; an error if loading it with PyTorch would run something dangerous."""
        token = self.globals.get((module, name))
        if token is None:
            token = self.globals[module, name] = Global(module, name)
            if len(self.globals) > MAX_GLOBALS:
                self._too_many(MAX_GLOBALS, "classes and functions named")
            danger = named(token.path)
            if danger is not None:
                raise CheckpointError(
                    self.name,
                    (
                        f"asks for {quote(danger)}, which torch.load would run; bridge runs nothing, and reads no "
                        "file that tries"
                    ),
                    "Load it nowhere, and get the weights from somebody you trust",
                )
        return token

    def copy(self, nbytes: int) -> None:
        """Count bytes that are about to be copied; an error where that gets out of proportion."""
        self._copied += nbytes
        if self._copied > FREE_COPIED_NBYTES + min(2 * self.held, MAX_COPIED_NBYTES):
            raise CheckpointError(
                self.name,
                (
                    f"has a pickle that copies more than it holds, {self._copied:,} bytes from {self.held:,}: it "
                    "is made to use up memory"
                ),
                "Do not load it anywhere",
            )

    def _too_many(self, limit: int, what: str) -> NoReturn:
        raise CheckpointError(
            self.name,
            f"has a pickle with more than {limit:,} {what}, the most that bridge follows",
            "Save the weights without what lies beside them, or in several files",
        )

    def damaged(self, what: str) -> NoReturn:
        """Refuse the pickle for what stands just before `position`."""
        raise CheckpointError(
            self.name, f"is damaged: its pickle has {what} at byte {self.position - 1:,}", "Fetch it again"
        )
