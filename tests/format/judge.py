"""Two readers, one file: do they agree?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bridge import _errors
from tests.craft import ours, reference, seen


def disagreement(path: Path) -> str | None:
    """None where we and the reference reader judge the file alike; else how we differ.

    Alike: both refuse it, or both see the same tensors and metadata, bytes included. The one exception: where a name
    stands twice in one object, we must refuse whatever the reference does. Errors of other kinds than our own come
    through.
    """
    theirs = reference(path)
    try:
        header = ours(path)
    except _errors.CheckpointError as e:
        if theirs is None or "twice in one object" in str(e):
            return None if theirs is None or has_twins(path) else f"no name stands twice, but: {e}"
        return f"the reference accepts it, we say: {e}"
    if theirs is None:
        return "the reference refuses it, we accept it"
    if has_twins(path):
        return "a name stands twice, we accept it"
    return None if seen(path, header) == theirs else f"the reference sees {theirs}, we see {seen(path, header)}"


def has_twins(path: Path) -> bool:
    """Whether a name stands twice in one object of a header that is JSON."""
    content = path.read_bytes()
    twins: list[str] = []

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(items)
        twins.extend([""] * (len(items) - len(made)))
        return made

    json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")], object_pairs_hook=pairs, parse_int=float)
    return bool(twins)
