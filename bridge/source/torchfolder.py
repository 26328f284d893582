"""Which file of a folder that has no safetensors PyTorch's weights are in."""

from __future__ import annotations

from collections.abc import Sequence

from bridge.source.folder import Folder
from bridge.source.resolve import ASIDE, PICKLED, Located, choose, located_by_index

_INDEX = ".bin.index"
TRAINING = ("optimizer.", "random_states_", "rng_state", "scaler.", "scheduler.", "training_args.")
"""What a trainer writes beside the weights."""


def torch_in_folder(folder: Folder, variant: str | None, commit: str | None) -> Located | None:
    """An index decides; without one `pytorch_model.bin`, else the only file of such a name. None if there is none."""
    index_name = f"pytorch_model{_INDEX}.{variant}.json" if variant else f"pytorch_model{_INDEX}.json"
    default = f"pytorch_model.{variant}.bin" if variant else "pytorch_model.bin"
    # A web server may not list what it has.
    found = folder.names() or [name for name in (index_name, default) if folder.has(name)]
    names = [name for name in found if not name.startswith((*ASIDE, *TRAINING))]
    indices = [name for name in names if name.endswith(index_name.removeprefix("pytorch_model"))]
    index = choose(indices, (index_name,), "indices", folder)
    if index is not None:
        return located_by_index(folder, index, commit)
    candidates = _of_variant([name for name in names if name.endswith(PICKLED)], variant)
    name = choose(candidates, (default,), "PyTorch files and no index", folder)
    return None if name is None else Located(folder.label, folder, (name,), commit=commit)


def _of_variant(names: Sequence[str], variant: str | None) -> list[str]:
    """Those of a variant; without one, those that are no variant of another one there."""
    if variant is not None:
        return [name for name in names if _stem(name).endswith(f".{variant}")]
    stems = {_stem(name) for name in names}
    return [name for name in names if _stem(name).rpartition(".")[0] not in stems]


def _stem(name: str) -> str:
    return name.rpartition(".")[0]
