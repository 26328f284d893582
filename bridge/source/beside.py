"""Files that lie with those of a checkpoint, read whole."""

from __future__ import annotations

from bridge._errors import CheckpointError
from bridge._text import quote
from bridge.source.bytes import ByteSource

_MAX_BESIDE_NBYTES = 1 << 30  # it is read whole: as many bytes as a record of ten of the longest headers has


def read_beside(source: ByteSource) -> bytes:
    """All bytes of a file, which is closed. **Raises:** `CheckpointError` for one that is too long."""
    try:
        if source.nbytes > _MAX_BESIDE_NBYTES:
            raise CheckpointError(
                quote(source.name),
                f"holds {source.nbytes:,} bytes, more than the {_MAX_BESIDE_NBYTES:,} that it may have",
                "Check where it came from",
            )
        raw = bytearray(source.nbytes)
        source.readinto([memoryview(raw)], 0)
        return bytes(raw)
    finally:
        source.close()
