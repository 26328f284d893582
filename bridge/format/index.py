"""The index of a checkpoint of several files: `model.safetensors.index.json`.

The index is authoritative: a tensor that lies in a file but is not listed here, or is listed for another file, is stale
and left alone. `metadata.total_size` is often stale too; nothing depends on it, so it is not checked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from bridge._errors import CheckpointError
from bridge._text import quote
from bridge.format.strict_json import is_object, kind, loads

MAX_INDEX_NBYTES = 100_000_000  # as for headers; 100,000 keys take a tenth of it
_ADVICE = "Fetch the index again, or save the checkpoint again: it is damaged, or was written by a faulty tool"
_DRIVE = re.compile(r"[A-Za-z]:")


class FileIndex(NamedTuple):
    """Which file each key lies in.

    - `weight_map`: key to the name of a file, relative to the index's folder and below it.
    - `metadata`: what the index says about itself, unchecked JSON; `{}` where it says nothing.
    """

    weight_map: Mapping[str, str]
    metadata: Mapping[str, Any]

    @property
    def files(self) -> tuple[str, ...]:
        """The names of the files, sorted."""
        return tuple(sorted(set(self.weight_map.values())))


def parse_index(raw: bytes, *, name: str) -> FileIndex:
    """Parse and check an index.

    **Arguments:**

    - `raw`: the file's bytes.
    - `name`: the file's name, for messages.

    **Returns:** a `FileIndex`. `CheckpointError` if it is no JSON, has a name twice or a wrong type, or names a
    file outside its folder.
    """
    if raw.startswith(b"version https://git-lfs"):
        raise CheckpointError(quote(name), "is a Git LFS pointer, not the file", "Run `git lfs pull` in its repository")
    document = loads(raw, subject=f"{quote(name)}: the index", advice=_ADVICE)
    if not is_object(document):
        raise CheckpointError(quote(name), f": the index must be a JSON object, got {kind(document)}", _ADVICE)
    if "weight_map" not in document:
        raise CheckpointError(quote(name), ": the index has no weight_map, which says where each key lies", _ADVICE)
    weight_map, metadata = document["weight_map"], document.get("metadata")
    if not is_object(weight_map):
        raise CheckpointError(quote(name), f": weight_map must be an object, got {kind(weight_map)}", _ADVICE)
    if metadata is not None and not is_object(metadata):
        raise CheckpointError(quote(name), f": metadata must be an object, got {kind(metadata)}", _ADVICE)
    safe: set[str] = set()
    for key, file in weight_map.items():
        if not isinstance(file, str):
            raise CheckpointError(
                quote(name), f": weight_map {quote(key)} must be a file name, got {kind(file)}", _ADVICE
            )
        if file not in safe:
            _check_name(file, key, name)
            safe.add(file)
    return FileIndex(weight_map, metadata or {})


def _check_name(file: str, key: str, index: str) -> None:
    """Names come from strangers: none may leave the folder, on any system."""
    if not file:
        problem = "is empty"
    elif "\0" in file:
        problem = "holds a NUL"
    elif "://" in file:
        problem = "is a URL"
    elif "\\" in file:
        problem = "holds a backslash"
    elif file.startswith("/") or _DRIVE.match(file):
        problem = "is absolute"
    elif any(segment in ("", ".", "..") for segment in file.split("/")):
        problem = "has '..', '.' or nothing between its slashes"
    else:
        return
    raise CheckpointError(
        quote(index),
        (
            f": weight_map {quote(key)} names {quote(file)}, which {problem}: a file of an index lies in "
            "its folder or below"
        ),
        "Do not use this checkpoint unless you trust its maker",
    )
