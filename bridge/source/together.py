"""The tables of several files as one: by their index, or side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from bridge._errors import CheckpointError
from bridge._text import quote
from bridge.format.header import Header
from bridge.format.table import Numbers, Table

if TYPE_CHECKING:
    from bridge.format.index import FileIndex
    from bridge.source.resolve import Located


def joined(located: Located, headers: Mapping[str, Header]) -> Table:
    """All tensors of all files."""
    if located.parsed_index is not None:
        return _indexed(located, located.parsed_index, headers)
    tables = [header.tensors for header in headers.values()]
    if len(tables) == 1:
        return tables[0]
    found = Table.joined([(table, np.arange(len(table))) for table in tables])
    if len(set(found.names)) < len(found):
        home: dict[str, str] = {}
        for file, header in headers.items():
            for key in header.tensors:
                if home.setdefault(key, file) != file:
                    raise CheckpointError(
                        f"key {quote(key)}",
                        f"is in {quote(home[key])} and in {quote(file)}",
                        "Leave one of the files out, or give the folder with the index that says which counts",
                    )
    return found


def _indexed(located: Located, index: FileIndex, headers: Mapping[str, Header]) -> Table:
    listed = index.weight_map
    kept: list[tuple[Table, Numbers]] = []
    for file, header in headers.items():
        # What an index does not list is stale. In the order of the files, so that walking the keys walks the disk.
        here = np.fromiter((listed.get(key) == file for key in header.tensors.names), bool, len(header.tensors))
        kept.append((header.tensors, np.flatnonzero(here)))
    found = Table.joined(kept)
    if len(found) < len(listed):
        key, file = next((key, file) for key, file in listed.items() if key not in headers[file].tensors)
        elsewhere = next((f for f, h in headers.items() if key in h.tensors), None)
        where = "no file of the index holds it" if elsewhere is None else f"it is in {quote(elsewhere)}"
        raise CheckpointError(
            f"{quote(located.index_name)} of {quote(located.text)}",
            f": key {quote(key)} is not in {quote(file)}, although the index lists it there; {where}",
            "Fetch all files again, with their index: they do not belong together",
        )
    return found
