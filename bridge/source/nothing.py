"""What to say of a folder that holds no checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from bridge._errors import CheckpointError
from bridge._text import quote
from bridge.source.folder import Folder
from bridge.source.resolve import PICKLED

_WEIGHTS = (".safetensors", *PICKLED)


def refuse_empty(folder: Folder, variant: str | None) -> NoReturn:
    """No file of a folder stands for it. **Raises:** `CheckpointError` that says what there is."""
    names = folder.names()
    present = [name for name in names if name.endswith(_WEIGHTS) and not name.startswith(".")]
    if present and variant:
        raise CheckpointError(
            f"{quote(folder.label)} holds no file of variant {quote(variant)}, but {_few(present)}. "
            "Leave `variant` out, or name one that is there."
        )
    if present:
        raise CheckpointError(
            f"{quote(folder.label)} holds only {_few(present)}, and does not stand for it. Name the file itself."
        )
    below = _subfolders(folder)
    if below:
        raise CheckpointError(
            f"{quote(folder.label)} holds no weights itself; these of its folders do: {_few(below)}. "
            f"Choose one, as in subfolder={quote(below[0])}."
        )
    found = f"holds no file of weights, but {_few(names)}" if names else "is empty"
    raise CheckpointError(
        f"{quote(folder.label)} {found}. Name the folder that holds the weights; `subfolder=` names one inside it."
    )


def refuse_subfolder(folder: Folder, subfolder: str) -> NoReturn:
    """A folder has none of that name. **Raises:** `CheckpointError` that says which there are."""
    below = _subfolders(folder)
    problem = f"{quote(folder.label)} has no folder {quote(subfolder)}"
    if not below:
        raise CheckpointError(f"{problem}, and none with weights. Leave `subfolder` out, or check its spelling.")
    raise CheckpointError(f"{problem}; folders with weights: {_few(below)}. Check the spelling of `subfolder`.")


def _subfolders(folder: Folder) -> list[str]:
    """The folders directly in one that hold files of weights."""
    found = (name.rpartition("/")[0] for name in folder.below() if name.endswith(_WEIGHTS))
    return [name for name in dict.fromkeys(found) if not name.startswith(".")]


def _few(names: Sequence[str]) -> str:
    return ", ".join(map(quote, names[:8])) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
