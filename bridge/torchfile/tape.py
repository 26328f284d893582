"""The bytes of a pickle, read when they are asked for: in a stream nobody knows where it ends."""

from __future__ import annotations

from bridge._errors import CheckpointError
from bridge._text import quote
from bridge.format.header import Readable
from bridge.torchfile.limits import MAX_PICKLE_NBYTES

_CHUNK_NBYTES = 64 * 1024


class Tape:
    """Bytes `start` to `stop` of a file. `data` is what has been read of them, and only ever grows."""

    def __init__(self, source: Readable, start: int, stop: int) -> None:
        """**Arguments:** the file, and where the bytes begin and end, counted from its start."""
        self.source, self.start, self.stop = source, start, stop
        self.data = bytearray()
        self._read(min(_CHUNK_NBYTES, stop - start))

    @classmethod
    def of(cls, source: Readable, data: bytearray) -> Tape:
        """A pickle of that file that has been read already."""
        tape = cls(source, 0, 0)
        tape.data, tape.stop = data, len(data)
        return tape

    def reach(self, stop: int) -> int:
        """Have at least `stop` bytes; how many there are now.

        Reads on by as much as there is already, so that a long pickle takes few reads.
        """
        if stop > self.stop - self.start:
            raise CheckpointError(
                quote(self.source.name), "ends in the middle of its pickle: it is cut off", "Fetch it again"
            )
        if stop > MAX_PICKLE_NBYTES:
            raise CheckpointError(
                quote(self.source.name),
                f"has a pickle of more than {MAX_PICKLE_NBYTES:,} bytes, the most that bridge reads",
                "Save the weights without what lies beside them",
            )
        if stop > len(self.data):
            wanted = max(stop, 2 * len(self.data), _CHUNK_NBYTES)
            self._read(min(wanted, self.stop - self.start, MAX_PICKLE_NBYTES) - len(self.data))
        return len(self.data)

    def _read(self, nbytes: int) -> None:
        if nbytes == 0:
            return
        chunk = bytearray(nbytes)
        self.source.readinto([memoryview(chunk)], self.start + len(self.data))
        self.data += chunk
