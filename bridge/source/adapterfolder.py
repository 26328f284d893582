"""Which file of a folder holds an adapter."""

from __future__ import annotations

from bridge._errors import CheckpointError
from bridge._text import quote
from bridge.source.folder import Folder
from bridge.source.resolve import PICKLED, Located, choose

NAMES = ("adapter_model.safetensors", "adapter_model.bin")
"""What PEFT writes, the one that it writes today first."""
_DIFFUSERS = "pytorch_lora_weights.safetensors"


def adapter_in_folder(folder: Folder, variant: str | None, commit: str | None = None) -> Located:
    """The adapter of a folder. `variant` is for models. **Raises:** `CheckpointError` where there is none."""
    del variant
    found = known_adapter(folder, commit)
    if found is not None:
        return found
    weights = [name for name in folder.names() if name.endswith((".safetensors", *PICKLED)) and name[0] != "."]
    name = choose(weights, (_DIFFUSERS,), f"files of weights, but no {' or '.join(NAMES)}", folder)
    if name is None:
        raise CheckpointError(quote(folder.label), "holds no adapter", "Name the folder or the file that has it")
    return Located(folder.label, folder, (name,), commit=commit)


def known_adapter(folder: Folder, commit: str | None = None) -> Located | None:
    """The file that PEFT writes, if it is there."""
    names = folder.names()
    name = next((name for name in NAMES if name in names or (not names and folder.has(name))), None)
    return None if name is None else Located(folder.label, folder, (name,), commit=commit)
