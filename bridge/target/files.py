"""Which tensors go to which file: in order, and no file longer than it may be."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from json.encoder import encode_basestring
from math import prod

import numpy as np

from bridge._dtypes import DTYPES, dtype_name
from bridge._errors import SaveError
from bridge.mapping.arrays import Shape
from bridge.mapping.template import Spec

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


def parse_nbytes(text: int | str) -> int:
    """A number of bytes, as `max_shard_size` spells it. **Raises:** `SaveError`."""
    found = (
        re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", str(text), re.ASCII)
        if not isinstance(text, bool)
        else None
    )
    unit = _UNITS.get(found[2].upper()) if found else None
    if found is None or unit is None or float(found[1]) * unit < 1:
        raise SaveError(
            f"max_shard_size {text!r}", "is not a number of bytes", "Write 5_000_000_000, '5GB' or '500MiB'"
        )
    return int(found[1]) * unit if found[1].isdecimal() else int(float(found[1]) * unit)


def stored_nbytes(spec: Spec) -> int:
    """How many bytes a file has for a tensor: below 8 bits an element, fewer than memory."""
    return prod(spec.shape) * DTYPES[dtype_name(spec.dtype)].bits // 8


def split_into_files(
    specs: Mapping[str, Spec], limit: int | None, metadata: Mapping[str, str]
) -> list[dict[str, Spec]]:
    """Keys dealt to files of at most `limit` bytes, headers counted, in order; a larger tensor has its own file."""
    if limit is None:
        return [dict(specs)]
    found: list[dict[str, Spec]] = [{}]
    empty = 8 + 8 + len(json.dumps({"__metadata__": dict(metadata)}, ensure_ascii=False).encode())
    filled = empty
    known: dict[tuple[np.dtype, Shape], int] = {}
    for key, spec in specs.items():
        kind = spec.dtype, spec.shape
        if kind not in known:
            known[kind] = stored_nbytes(spec) + _entry_nbytes(spec)
        nbytes = known[kind] + len(encode_basestring(key).encode("utf-8", "surrogatepass"))
        if found[-1] and filled + nbytes > limit:
            found.append({})
            filled = empty
        found[-1][key] = spec
        filled += nbytes
    return found


def _entry_nbytes(spec: Spec) -> int:
    """How many bytes of a header speak of one tensor, beside its key: at most, for offsets of any length that a disk
    has.
    """
    entry = {"": {"dtype": dtype_name(spec.dtype), "shape": list(spec.shape), "data_offsets": [10**15, 10**15]}}
    return len(json.dumps(entry, separators=(",", ":"))) - len('""')
