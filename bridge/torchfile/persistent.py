"""Persistent ids: how a pickle says "the storage that lies beside me"."""

# What patterns find in a pickle's values is of any type.
# pyright: reportMatchNotExhaustive=false

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bridge._errors import CheckpointError
from bridge._text import quote
from bridge.torchfile.dtypes import STORAGES
from bridge.torchfile.limits import MAX_ELEMENTS
from bridge.torchfile.tokens import Global, Storage

if TYPE_CHECKING:
    from bridge.torchfile.machine import Machine

_MAX_KEY = 40  # streams use addresses as keys


def storage_of(m: Machine, identity: Any) -> Storage | Global:
    """The storage that an id stands for; for the class of a pickled module, whose id carries its source, the class.

    `("storage", type, key, device, numel)`, in a stream with one part more: `None`, or `(key, start, count)` for the
    views of storages that old files have.
    """
    match identity:
        case ("module", Global() as cls, _, _):
            return cls
        case ("storage", Global() as cls, str() as key, _, int() as numel):
            window = None
        case ("storage", Global() as cls, str() as key, _, int() as numel, window):
            pass
        case _:
            m.damaged("an invalid persistent id")
    kind = _kind(m, cls)
    if not (key.isascii() and key.isdigit() and len(key) <= _MAX_KEY) or not _is_count(numel):
        m.damaged("a storage without a number or a length")
    known = m.storages.setdefault(key, Storage(key, kind, numel, None))
    if (known.kind, known.numel) != (kind, numel):
        raise CheckpointError(
            m.name,
            (
                f"names storage {quote(key)} twice, as {known.numel:,} of {known.kind or 'bytes'} and as "
                f"{numel:,} of {kind or 'bytes'}: torch.save writes no such file"
            ),
            "Fetch it again: it is damaged, or made by hand",
        )
    return known if window is None else _view(m, known, window)


def _view(m: Machine, storage: Storage, window: Any) -> Storage:
    match window:
        case (str(), int() as start, int() as count) if _is_count(start) and _is_count(count):
            if start + count <= storage.numel:
                return Storage(storage.key, storage.kind, storage.numel, (start, count))
    m.damaged("a view beyond its storage")


def _kind(m: Machine, cls: Global) -> str | None:
    """The dtype of a storage's type, on whatever device; None for an untyped one."""
    if cls.path in ("torch.storage.UntypedStorage", "torch.UntypedStorage", "torch.cuda.UntypedStorage"):
        return None
    if cls.module not in ("torch", "torch.cuda") or cls.name not in STORAGES:
        raise CheckpointError(
            m.name,
            f"has a storage of the type {quote(cls.path)}, which bridge does not know",
            "Save it again with torch.save, from tensors on the CPU",
        )
    return STORAGES[cls.name]


def _is_count(number: Any) -> bool:
    return type(number) is int and 0 <= number <= MAX_ELEMENTS
