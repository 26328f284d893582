"""Which attributes of a TorchScript class are parameters and buffers: two lists in the text of its code."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable

from bridge._errors import CheckpointError
from bridge._text import quote
from bridge.torchfile.archive import Archive
from bridge.torchfile.limits import MAX_CODE_NBYTES

Lists = Callable[[str], "list[str] | None"]
"""From a class, `__torch__.module.Name`, to the names of its parameters and buffers; None if it is no module."""

_CLASS = re.compile(r"class (\w+)\(Module\):")
_LIST = re.compile(r"  __(?:parameters|buffers)__ = \[(.*)\]")
_NAME = re.compile(r'"([^"\\]*)"')


def script_lists(archive: Archive) -> Lists:
    """The lists of an archive's classes, each file of code read when one of its classes is asked for."""
    files: dict[str, dict[str, list[str]]] = {}
    used = 0

    def lists(cls: str) -> list[str] | None:
        nonlocal used
        module, _, name = cls.rpartition(".")
        record = f"code/{module.replace('.', '/')}.py"
        if record not in archive.records:
            return None
        if record not in files:
            text = _inflated(archive, record, MAX_CODE_NBYTES - used)
            used += len(text)
            files[record] = _parsed(text)
        return files[record].get(name)

    return lists


def _parsed(code: str) -> dict[str, list[str]]:
    """Of each class that is a module, the names on its two lists."""
    found: dict[str, list[str]] = {}
    names: list[str] = []
    for line in code.splitlines():
        if line.startswith("class "):
            head = _CLASS.match(line)
            names = []  # what follows another kind of class is of no use
            if head is not None:
                found[head[1]] = names
        elif line.startswith("  __"):
            listed = _LIST.fullmatch(line)
            if listed is not None:
                names += _NAME.findall(listed[1])
    return found


def _inflated(archive: Archive, record: str, limit: int) -> str:
    """The text of a record, compressed or not."""
    entry = archive.records[record]
    name = quote(archive.source.name)
    if entry.packed_nbytes > limit or entry.nbytes > limit or entry.method not in (0, 8):
        raise CheckpointError(
            name,
            f"has more than {MAX_CODE_NBYTES:,} bytes of TorchScript code, the most that bridge reads",
            "Save the model's state_dict() with torch.save",
        )
    raw = archive.packed(record)
    try:
        if entry.method == 8:
            inflater = zlib.decompressobj(-zlib.MAX_WBITS)
            raw = inflater.decompress(raw, limit)
            if not inflater.eof:
                raise zlib.error("more than it says")
        return raw.decode()
    except (zlib.error, UnicodeDecodeError) as e:
        raise CheckpointError(
            name, f"has TorchScript code in {quote(record)} that cannot be read: it is damaged", "Fetch it again"
        ) from e
