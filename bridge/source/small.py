"""Small tensors, many at once: what has to be known of them before anything is planned."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import numpy as np

from bridge._errors import CheckpointError
from bridge._text import quote
from bridge.format.spec import TensorSpec
from bridge.format.table import Table
from bridge.source.bytes import ByteSource
from bridge.source.tensor import check_readable, read_key

_LIMIT = 1 << 24
"""Bytes of one such tensor; zero points of the largest models have some megabytes."""
_GAP = 64 << 10
_DISTANT = 1 << 20
_AT_ONCE = 16


def read_small(specs: Table, keys: Iterable[str], peek: Callable[[str], ByteSource]) -> dict[str, np.ndarray]:
    """The values of some tensors that are stored as they are.

    Neighbours are read together. Over a network more bytes are read for fewer requests, and several are made at once.

    **Arguments:**

    - `specs`, `keys`: where they lie.
    - `peek`: a file's bytes, by its name.

    **Raises:** `CheckpointError` for what reading finds, and for a tensor that is not small.
    """
    runs: list[list[tuple[str, TensorSpec]]] = []
    apart: list[str] = []
    wanted = sorted(((key, specs[key]) for key in keys), key=lambda pair: (pair[1].file, pair[1].offset))
    for key, spec in wanted:
        check_readable(specs, key)
        if spec.nbytes > _LIMIT:
            raise CheckpointError(
                f"key {quote(key)} in {quote(spec.file)}",
                f"has {spec.nbytes:,} bytes, more than the {_LIMIT:,} that such a part may have",
                "Take the stored tensors with quantized='keep'",
            )
        if not specs.is_plain(key):
            apart.append(key)
            continue
        gap = _GAP if peek(spec.file).parallel is None else _DISTANT
        if runs and _is_near(runs[-1], spec, gap):
            runs[-1].append((key, spec))
        else:
            runs.append([(key, spec)])
    if len(runs) > 1 and any(peek(run[0][1].file).parallel is not None for run in runs):
        from bridge.source.parallel import at_once  # only those who wait for a network wait for it

        found = at_once(partial(_read, peek=peek), runs, _AT_ONCE)
    else:
        found = [_read(run, peek) for run in runs]
    read = {key: values for part in found for key, values in part.items()}
    return read | {key: read_key(_Peeked(peek), specs, key) for key in apart}


class _Peeked:
    """Files whose bytes are taken from where they are."""

    def __init__(self, peek: Callable[[str], ByteSource]) -> None:
        self._peek = peek

    def byte_source(self, file: str) -> ByteSource:
        """The bytes of one file."""
        return self._peek(file)


def _is_near(run: list[tuple[str, TensorSpec]], spec: TensorSpec, gap: int) -> bool:
    first, before = run[0][1], run[-1][1]
    together = spec.offset + spec.nbytes - first.offset
    return before.file == spec.file and spec.offset - (before.offset + before.nbytes) <= gap and together <= _LIMIT


def _read(run: list[tuple[str, TensorSpec]], peek: Callable[[str], ByteSource]) -> dict[str, np.ndarray]:
    """Neighbours, by one read."""
    start, last = run[0][1].offset, run[-1][1]
    raw = np.empty(last.offset + last.nbytes - start, np.uint8)
    try:
        peek(last.file).readinto([raw.data], start)
    except CheckpointError as error:
        raise CheckpointError(f"key {quote(run[0][0])}", f": {error.statement}", error.advice) from error
    found: dict[str, np.ndarray] = {}
    for key, spec in run:
        part = raw[spec.offset - start : spec.offset - start + spec.nbytes]
        found[key] = part.copy().view(spec.dtype).reshape(spec.shape)
    return found
