"""What to say of a folder that holds no checkpoint."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Sequence
from typing import NoReturn

from bridge._errors import CheckpointError
from bridge._text import quote
from bridge.source.folder import Folder
from bridge.source.resolve import PICKLED
from bridge.source.torchfolder import TRAINING

_WEIGHTS = (".safetensors", *PICKLED)
PART = re.compile(r"(.*?)-?0*(\d+)-of-0*(\d+)(\.\w+)+")
"""What one of several files is called: `model-00001-of-00002.safetensors`."""
_REPO = re.compile(r"models--([\w.-]+)")
_BEGUN = (".incomplete", ".crdownload", ".part", ".aria2", ".download")
_OTHERS = {
    ".gguf": "GGUF",
    ".h5": "HDF5",
    ".msgpack": "Flax",
    ".onnx": "ONNX",
    ".npz": "numpy",
    ".eqx": "Equinox's own",
    ".ckpt.index": "TensorFlow",
    "manifest.ocdbt": "Orbax",
}


def refuse_empty(folder: Folder, variant: str | None) -> NoReturn:
    """No file of a folder stands for it. **Raises:** `CheckpointError` that says what there is."""
    names = folder.names()
    present = [name for name in names if name.endswith(_WEIGHTS) and not name.startswith(".")]
    if present and variant:
        raise CheckpointError(
            quote(folder.label),
            f"holds no file of variant {quote(variant)}, only {_few(present)}",
            "Leave `variant` out, or name one that is there",
        )
    if present and all(name.startswith(TRAINING) for name in present):
        raise CheckpointError(
            quote(folder.label),
            f"holds no weights, only what a trainer keeps for itself: {_few(present)}",
            "Name the folder that holds the model",
        )
    if present:
        raise CheckpointError(
            quote(folder.label),
            f"holds only {_few(present)}, which is read only if it is named",
            "Name the file itself",
        )
    begun = [name for name in names if name.endswith(_BEGUN)]
    if begun:
        raise CheckpointError(
            quote(folder.label),
            f"holds {_few(begun)}, whose download did not finish, and no file of weights",
            "Fetch it again",
        )
    others = [(name, what) for name in names for ending, what in _OTHERS.items() if name.endswith(ending)]
    if others:
        shown = ", ".join(f"{quote(name)} ({what})" for name, what in others[:8])
        raise CheckpointError(
            quote(folder.label),
            f"holds no safetensors, but weights in other formats: {shown}",
            "Fetch the safetensors of the same model",
        )
    below = _subfolders(folder)
    if below:
        raise CheckpointError(
            quote(folder.label),
            f"holds no weights itself; these of its folders do: {_few(below)}",
            f"Choose one, as in subfolder={quote(below[0])}",
        )
    cached = _REPO.fullmatch(os.path.basename(folder.label.rstrip("/")))
    if cached is not None:
        raise CheckpointError(
            quote(folder.label),
            "is where the Hub's cache keeps a repo",
            f"Name the repo, {quote('/'.join(cached[1].split('--')))}, or a folder in its 'snapshots'",
        )
    found = f"holds no file of weights, only {_few(names)}" if names else "is empty"
    raise CheckpointError(
        quote(folder.label), found, "Name the folder that holds the weights; `subfolder=` names one inside it"
    )


def refuse_parts(folder: Folder, names: Sequence[str]) -> None:
    """**Raises:** `CheckpointError` where files are the numbered parts of one checkpoint that has lost its index."""
    if all(PART.fullmatch(name) for name in names):
        raise CheckpointError(
            quote(folder.label),
            f"holds parts of one checkpoint without the index that lists them: {_few(names)}",
            "Fetch the index too, or name all parts as a list",
        )


def refuse_subfolder(folder: Folder, subfolder: str) -> NoReturn:
    """A folder has none of that name. **Raises:** `CheckpointError` that says which there are."""
    below = _subfolders(folder)
    label, problem = quote(folder.label), f"has no folder {quote(subfolder)}"
    if not below:
        raise CheckpointError(
            label, f"{problem}, and none with weights", "Leave `subfolder` out, or check its spelling"
        )
    raise CheckpointError(label, f"{problem}; folders with weights: {_few(below)}", "Check the spelling of `subfolder`")


def refuse_absent(path: str) -> NoReturn:
    """Nothing has this name. **Raises:** `CheckpointError` that says what has one like it."""
    parent, name = os.path.split(path.rstrip("/"))
    try:
        near = difflib.get_close_matches(name[:100], os.listdir(parent or "."), n=1, cutoff=0.8)
    except (OSError, ValueError):
        near = []
    named = "Name a file, a folder, a URL or a Hub repo like 'org/name'"
    advice = f"Did you mean {quote(os.path.join(parent, near[0]))}?" if near else named
    raise CheckpointError(quote(path), "does not exist", advice)


def _subfolders(folder: Folder) -> list[str]:
    """The folders directly in one that hold files of weights."""
    found = (name.rpartition("/")[0] for name in folder.below() if name.endswith(_WEIGHTS))
    return [name for name in dict.fromkeys(found) if not name.startswith(".")]


def _few(names: Sequence[str]) -> str:
    return ", ".join(map(quote, names[:8])) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
