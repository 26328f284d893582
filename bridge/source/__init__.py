"""Sources: files, folders, URLs, repos. From what the user names to open files and a `Checkpoint`."""

from __future__ import annotations

from bridge.source.bytes import ByteSource, LocalFile
from bridge.source.checkpoint import Checkpoint, open_checkpoint

__all__ = ["ByteSource", "Checkpoint", "LocalFile", "open_checkpoint"]
