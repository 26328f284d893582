"""The checkpoint that a reader would find in a folder, and the files that go with it."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from bridge._errors import BridgeError, CheckpointError
from bridge.format.header import read_header
from bridge.source.bytes import LocalFile
from bridge.source.folder import LocalFolder
from bridge.source.resolve import safetensors_in_folder

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
BESIDE = "eqx-bridge.beside"
"""The name in `__metadata__` whose value is a JSON list of the files that go with a converted one."""
_SUFFIX = ".safetensors"
_BESIDE_NAME = re.compile(r"bridge(-\w+)*\.(json|original)", re.ASCII)


@dataclass(frozen=True, slots=True)
class ExistingCheckpoint:
    """A checkpoint in a folder.

    - `index`: the name of the index that decides, if one does.
    - `counted`: the names of the index and the files of tensors.
    - `files`: these and what goes with them: all that goes when another checkpoint takes the place.
    """

    index: str | None = None
    counted: tuple[str, ...] = ()
    files: tuple[str, ...] = ()


def existing_checkpoint(folder: Path) -> ExistingCheckpoint:
    """The checkpoint that stands in `folder`. An index that nobody can read stands there alone.

    Only names that a writer may remove: safetensors files that lie in the folder, or below it.
    """
    if not folder.is_dir():
        return ExistingCheckpoint()
    try:
        located = safetensors_in_folder(LocalFolder(str(folder)), variant=None)
        index, names = (None, ()) if located is None else (located.index_name or None, located.files)
    except CheckpointError as error:
        if isinstance(error.__cause__, OSError) and not isinstance(error.__cause__, FileNotFoundError):
            raise error.__cause__ from error  # what nobody may look at, nobody can replace
        index, names = (INDEX if os.path.lexists(folder / INDEX) else None), ()
    files = [name for name in names if name.endswith(_SUFFIX) and inside(folder, name)]
    files = [name for name in files if os.path.lexists(folder / name)]
    counted = ((index,) if index else ()) + tuple(files)
    # transformers prefers it to an index: it must not outlive a checkpoint of several files.
    stale = [SINGLE] if counted and os.path.lexists(folder / SINGLE) else []
    beside = [name for file in files[:1] for name in _beside(folder / file) if os.path.lexists(folder / name)]
    return ExistingCheckpoint(index, counted, tuple(dict.fromkeys((*counted, *stale, *beside))))


def indices(folder: Path) -> list[str]:
    """The names of all indices in `folder`, whoever wrote them."""
    return sorted(path.name for path in folder.glob(f"*{_SUFFIX}.index.json")) if folder.is_dir() else []


def tensor_files(folder: Path) -> list[str]:
    """The names of all safetensors files that lie directly in `folder`."""
    return sorted(path.name for path in folder.glob(f"*{_SUFFIX}")) if folder.is_dir() else []


def inside(folder: Path, name: str) -> bool:
    """Whether a name stays in the folder though links may lead out of it: names come from strangers."""
    parent = os.path.realpath((folder / name).parent)
    return os.path.commonpath([parent, os.path.realpath(folder)]) == os.path.realpath(folder)


def is_beside(name: object) -> bool:
    """Whether `name` is one that convert gives to a file beside the leaves: metadata may say anything."""
    return isinstance(name, str) and _BESIDE_NAME.fullmatch(name) is not None


def _beside(path: Path) -> list[str]:
    """What a converted file keeps beside it. Only names that convert gives: a file may say anything."""
    try:
        source = LocalFile(path)
        try:
            names = json.loads(read_header(source).metadata.get(BESIDE, "[]"))
        finally:
            source.close()
    except (BridgeError, ValueError, RecursionError):
        return []  # no such file can be what convert wrote
    listed = names if isinstance(names, list) else []
    return [name for name in listed if is_beside(name)]
