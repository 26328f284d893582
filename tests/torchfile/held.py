"""A file in memory."""

from __future__ import annotations

from collections.abc import Sequence


class Held:
    """A file in memory that counts what is read of it."""

    name = "x.pth"

    def __init__(self, content: bytes) -> None:
        self.content, self.nbytes = content, len(content)
        self.reads: list[tuple[int, int]] = []

    def readinto(self, buffers: Sequence[memoryview], offset: int) -> None:
        for buffer in buffers:
            buffer[:] = self.content[offset : offset + buffer.nbytes]
            self.reads.append((offset, buffer.nbytes))
            offset += buffer.nbytes
