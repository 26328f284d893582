"""Files that lie beside a checkpoint's weights: config.json, tokenizer.json."""

from __future__ import annotations

import bridge
from bridge._text import quote
from bridge.source.bytes import LocalFile


def beside(ckpt: bridge.Checkpoint, name: str) -> str:
    """The path of a file in the folder, or in the Hub repo, that `ckpt` was opened from.

    **Raises:** `CheckpointError` where there is none.
    """
    source = ckpt.open_beside(name)
    source.close()
    if not isinstance(source, LocalFile):
        raise bridge.CheckpointError(quote(source.name), "is not on this disk", "Fetch the model to a folder first")
    return source.path
