"""One tensor's bytes as a numpy array of its own."""

from __future__ import annotations

from math import prod

import numpy as np

from bridge._dtypes import DTYPES, dtype_label
from bridge._errors import CheckpointError
from bridge._text import human_nbytes, quote
from bridge.format.spec import TensorSpec
from bridge.format.table import Table
from bridge.source.bytes import ByteSource, FileSource

_ALIGNMENT = 64  # what JAX asks for before it takes a buffer over without a copy


def check_readable(specs: Table, key: str) -> None:
    """**Raises:** `CheckpointError` for a key that cannot be read, whatever for."""
    if key in specs.refused:
        raise CheckpointError(*specs.refused[key])


def read_key(files: FileSource, specs: Table, key: str, dtype: np.dtype | None = None) -> np.ndarray:
    """All values of a key of `specs`, which must have it, as `read_tensor` returns them.

    `dtype`: of a key that is computed, if not its own.
    """
    check_readable(specs, key)
    if specs.is_plain(key):
        spec = specs[key]
        return read_tensor(files.byte_source(spec.file), key, spec)
    from bridge.source.box import banded  # most keys are stored as they are

    tensor = specs.part(specs.numbers[key])
    dtype, shape = dtype or tensor.form.dtype, tensor.form.shape
    nbytes = prod(shape) * dtype.itemsize
    try:
        out = _empty(nbytes).view(dtype).reshape(shape)
    except MemoryError as e:
        raise CheckpointError(f"key {quote(key)} in {quote(tensor.file)}", *_too_large(nbytes)) from e
    for box, values in banded(files, tensor, dtype if dtype in tensor.form.computed_in else None):
        out[tuple(slice(r.start, r.stop) for r in box)] = values
    return out


def _too_large(nbytes: int) -> tuple[str, str]:
    return f"takes {human_nbytes(nbytes)}, more memory than there is", "Free some, or load less at once"


def read_tensor(source: ByteSource, key: str, spec: TensorSpec) -> np.ndarray:
    """Read one tensor, bit for bit.

    **Arguments:**

    - `source`: its file.
    - `key`: its name, for messages.
    - `spec`: its dtype, shape and place.

    **Returns:** an array of `spec.shape` and `spec.dtype` in memory of its own: writable, C-contiguous, 64-byte
    aligned. F4, of which a file packs two in a byte, has one value in a byte, the low four bits first.
    """
    subject = f"key {quote(key)} in {quote(source.name)}"
    dtype = DTYPES.get(dtype_label(spec.dtype))
    packed = dtype is not None and dtype.packed
    if dtype is not None and packed and dtype.bits != 4:
        raise CheckpointError(
            subject,
            f"is {dtype.name}, four values packed in three bytes in an order that no standard fixes",
            "Save it in a wider dtype with the tool that wrote it",
        )
    try:
        data = _empty(spec.nbytes)
        source.readinto([data.data], spec.offset)
        if packed:
            data = _unpack_nibbles(data)
        return data.view(spec.dtype).reshape(spec.shape)
    except CheckpointError as e:
        raise CheckpointError(subject, f"cannot be read: {e.statement}", e.advice) from e
    except MemoryError as e:
        raise CheckpointError(subject, *_too_large(spec.nbytes)) from e
    except ValueError as e:  # more axes, or longer ones beside an empty one, than an array can have
        raise CheckpointError(
            subject,
            f"has {len(spec.shape)} axes and a shape that numpy cannot hold: {str(e).rstrip('.')}",
            "Save it reshaped",
        ) from e


def _empty(nbytes: int) -> np.ndarray:
    """Uninitialised bytes, aligned. numpy itself aligns to 16."""
    space = np.empty(nbytes + _ALIGNMENT, np.uint8)
    start = -space.ctypes.data % _ALIGNMENT
    return space[start : start + nbytes]


def _unpack_nibbles(packed: np.ndarray) -> np.ndarray:
    values = _empty(2 * packed.nbytes)
    np.bitwise_and(packed, 0x0F, out=values[0::2])
    np.right_shift(packed, 4, out=values[1::2])
    return values
