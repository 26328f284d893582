"""The way back: a header's bytes for tensors that are about to be written, and the index of several files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import chain
from json.encoder import encode_basestring
from math import prod

import numpy as np

from bridge._dtypes import DTYPES, dtype_name
from bridge._errors import SaveError
from bridge._text import human_nbytes, quote
from bridge.format.header import MAX_HEADER_NBYTES

_ALIGNMENT = 8  # the data starts on a multiple of it, as the reference writer has it
Shape = tuple[int, ...]


def encode_header(
    tensors: Mapping[str, tuple[np.dtype, Shape]],
    metadata: Mapping[str, str],
    *,
    file: str,
    alignment: int = _ALIGNMENT,
) -> tuple[bytes, dict[str, int]]:
    """The header of a file that holds `tensors` one after the other, in their order.

    **Arguments:**

    - `tensors`: dtype and shape by key.
    - `metadata`: what `__metadata__` says; left out where empty.
    - `file`: the file's name, for messages.
    - `alignment`: on which multiple of bytes the data starts.

    **Returns:** the bytes up to the first tensor, and for each key where its bytes start, in bytes of the file.

    **Raises:** `SaveError` for a header beyond the 100 MB that readers take; `CheckpointError` for a dtype that the
    format has no name for.
    """
    entries = [f'"__metadata__":{_dumps(dict(metadata))}'] if metadata else []
    offsets: dict[str, int] = {}
    known: dict[tuple[np.dtype, Shape], tuple[str, int]] = {}
    start = 0
    for key, spec in tensors.items():
        if spec not in known:
            name = dtype_name(spec[0])
            text = f'{{"dtype":"{name}","shape":{_dumps(spec[1])},"data_offsets":'
            known[spec] = text, prod(spec[1]) * DTYPES[name].bits // 8
        text, nbytes = known[spec]
        entries.append(f"{encode_basestring(key)}:{text}[{start},{start + nbytes}]}}")
        offsets[key] = start
        start += nbytes
    try:
        raw = f"{{{','.join(entries)}}}".encode()
    except UnicodeEncodeError as e:
        text = next(text for text in (*tensors, *chain(*metadata.items())) if _is_lone(text))
        raise SaveError(
            quote(file), f": key or metadata {quote(text)} holds a lone surrogate, which UTF-8 cannot hold", "Rename it"
        ) from e
    raw += b" " * (-(8 + len(raw)) % alignment)
    if len(raw) > MAX_HEADER_NBYTES:
        raise SaveError(
            quote(file),
            f"would need a header of {human_nbytes(len(raw))}, readers take at most 100 MB",
            "Save to more files with a smaller max_shard_size, or with less metadata",
        )
    head = len(raw).to_bytes(8, "little") + raw
    return head, {key: len(head) + offset for key, offset in offsets.items()}


def _dumps(document: object) -> str:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False)


def _is_lone(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def encode_index(weight_map: Mapping[str, str], total_nbytes: int) -> bytes:
    """The index of several files, as transformers writes it."""
    document = {"metadata": {"total_size": total_nbytes}, "weight_map": dict(sorted(weight_map.items()))}
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()
