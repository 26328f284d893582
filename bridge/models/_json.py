"""JSON files of a checkpoint, read with errors that name them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import bridge


def read_json(path: str | os.PathLike[str]) -> Any:
    """What a JSON file says. **Raises:** `bridge.CheckpointError` that names the file."""
    name = os.fspath(path)
    try:
        raw = Path(path).read_bytes()
    except OSError as e:
        raise bridge.CheckpointError(f"'{safe(name)}'", f"cannot be read: {e.strerror or e}", "Check the path") from e
    return parse_json(raw, name=name)


def parse_json(raw: bytes, *, name: str) -> Any:
    """What the bytes of a JSON file say. **Raises:** `bridge.CheckpointError` that names the file."""
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as e:
        raise bridge.CheckpointError(f"'{safe(name)}'", f"is not JSON: {safe(str(e))}", "Fetch it again") from e


def safe(text: str) -> str:
    """A stranger's text as messages show it: printable, and cut where it is long."""
    shown = text if text.isprintable() else ascii(text)[1:-1]
    return shown if len(shown) <= 300 else f"{shown[:200]}…{shown[-60:]}"
