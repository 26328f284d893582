"""What lies beside a model of text: its tokenizer, and files that may not be there."""

from __future__ import annotations

from typing import Any

import bridge
from bridge.models._json import parse_json

OPENING = frozenset(
    {"revision", "subfolder", "variant", "token", "cache_dir", "local_files_only", "verify", "root", "modules"}
)
"""The keywords of `bridge.open`."""


def optional_json(ckpt: bridge.Checkpoint, name: str) -> Any:
    """What a JSON file beside a checkpoint says; `None` where there is none."""
    try:
        raw = ckpt.beside(name)
    except bridge.CheckpointError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise
    return parse_json(raw, name=f"{ckpt.source.rstrip('/')}/{name}")


def tokenizer_of(raw: bytes, *, name: str) -> Any:
    """A tokenizer of the bytes of a tokenizer.json.

    **Raises:** `bridge.BridgeError` where the library is not installed; `bridge.CheckpointError` where they are none.
    """
    try:
        from tokenizers import Tokenizer  # an extra: other models do without
    except ImportError as e:
        raise bridge.BridgeError(
            "tokenizing", "needs the 'tokenizers' library", "Install it: pip install 'eqx-bridge[text]'"
        ) from e
    try:
        return Tokenizer.from_buffer(raw)
    except Exception as e:  # the library raises no other
        raise bridge.CheckpointError(f"'{name}'", f"cannot be read as a tokenizer: {e}", "Fetch it again") from e
