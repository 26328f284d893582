"""A file that has been read whole: for one that is far away, small, and needed again and again."""

from __future__ import annotations

from collections.abc import Sequence

from bridge._errors import CheckpointError
from bridge._text import quote
from bridge.source.bytes import ByteSource

_CHUNK = 8 << 20


class InMemory:
    """A `ByteSource` over bytes."""

    parallel: int | None = None
    gap_nbytes = 0
    absent = False

    def __init__(self, name: str, raw: bytearray) -> None:
        self.name, self.nbytes = name, len(raw)
        self._raw = memoryview(raw)

    @classmethod
    def of(cls, source: ByteSource) -> InMemory:
        """All bytes of another source. **Raises:** `CheckpointError`."""
        raw = bytearray(source.nbytes)
        for start in range(0, len(raw), _CHUNK):
            source.readinto([memoryview(raw)[start : start + _CHUNK]], start)
        return cls(source.name, raw)

    def readinto(self, buffers: Sequence[memoryview], offset: int) -> None:
        """Fill all `buffers` from byte `offset` on."""
        for buffer in buffers:
            part = self._raw[offset : offset + buffer.nbytes]
            if part.nbytes < buffer.nbytes:
                raise CheckpointError(
                    quote(self.name),
                    f"is cut off: it holds {self.nbytes:,} bytes, and more were to be read",
                    "Fetch it again",
                )
            buffer.cast("B")[:] = part
            offset += buffer.nbytes

    def close(self) -> None:
        """Nothing is held that others need."""
