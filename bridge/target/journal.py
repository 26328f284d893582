"""What a commit is about, written down before it starts: the next writer can tell how far a killed one came.

Files are known by their inodes. So a journal speaks of nothing that somebody else put there since, and one that came
along with a stranger's folder speaks of nothing at all.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bridge.target.existing import existing_checkpoint

_JOURNAL = ".journal"
Identity = tuple[int, ...]


def write_journal(
    stage: Path,
    new: Sequence[str],
    old: Sequence[str],
    *,
    index_to_remove: str | None = None,
    temporary_links: Mapping[str, str] | None = None,
) -> None:
    """Write the journal of `stage`.

    **Arguments:**

    - `new`: names in `stage` of the files that the commit brings.
    - `old`: names in the folder of those that it replaces.
    - `index_to_remove`: the old index, where its going away is what commits.
    - `temporary_links`: names that old files get besides their own until then.
    """
    folder = stage.parent
    document = {
        "new": {name: _identity(stage / name) for name in new},
        "old": {name: _identity(folder / name) for name in old},
        "leaving": index_to_remove,
        "lent": {name: _identity(folder / own) for name, own in (temporary_links or {}).items()},
    }
    (stage / _JOURNAL).write_text(json.dumps(document))


def recover(stage: Path) -> None:
    """Finish or undo the commit of a writer at its end: the old files go if the new ones count, else these do."""
    try:
        document: Any = json.loads((stage / _JOURNAL).read_bytes())
        new, old, links = (_files(document[part]) for part in ("new", "old", "lent"))
        index_to_remove = document["leaving"]
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return  # it never came to a commit
    folder = stage.parent
    done = all(_is(folder / name, identity) for name, identity in new.items())
    if done and not (index_to_remove in old and _is(folder / index_to_remove, old[index_to_remove])):
        # Whatever counts now stays: to look for it takes reading a header.
        kept = {*new, *existing_checkpoint(folder).counted} if old else set[str]()
        gone = [entry for entry in old.items() if entry[0] not in kept]
    else:
        gone = list(new.items())
    for name, identity in (*gone, *links.items()):
        if _is(folder / name, identity):
            os.unlink(folder / name)


def _files(entries: Mapping[str, Sequence[int]]) -> dict[str, Identity]:
    return {
        name: tuple(identity) for name, identity in entries.items() if ".." not in Path(name).parts and name[:1] != "/"
    }


def _is(path: Path, identity: Identity) -> bool:
    return path.is_file() and tuple(_identity(path)) == identity


def _identity(path: Path) -> list[int]:
    status = os.stat(path, follow_symlinks=False)
    return [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns]
