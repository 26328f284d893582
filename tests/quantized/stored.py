"""A checkpoint in memory: found as `find` has it, read box by box as the stream reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from bridge import CheckpointError
from bridge.quantized import QuantizedKeys, find
from bridge.quantized.logical import Logical
from bridge.quantized.view import Box

Tensors = Mapping[str, np.ndarray]


class Spec(NamedTuple):
    dtype: np.dtype
    shape: tuple[int, ...]


def columns(tensors: Tensors) -> tuple[list[str], list[int], list[Spec]]:
    """As a `Table` has them: names, the number of each one's form, and the forms."""
    specs = [Spec(a.dtype, a.shape) for a in tensors.values()]
    forms = list(dict.fromkeys(specs))
    return list(tensors), [forms.index(spec) for spec in specs], forms


def found_in(tensors: Tensors, config: Mapping[str, Any] | None = None, **kwargs: Any) -> QuantizedKeys:
    """What is found, with what it needs read for it."""
    found = find(*columns(tensors), config, **kwargs)
    if found.needs:
        found = find(*columns(tensors), config, values={key: tensors[key] for key in found.needs}, **kwargs)
        assert found.needs == ()
    return found


def whole(shape: tuple[int, ...]) -> Box:
    return tuple(map(range, shape))


def read(tensor: Logical, tensors: Tensors, dtype: Any = np.float32, box: Box | None = None) -> np.ndarray:
    """A box of a quantised tensor, from exactly those boxes of its parts that it asks for."""
    box = whole(tensor.form.shape) if box is None else box
    parts: list[np.ndarray] = []
    for key, inner in zip(tensor.parts, tensor.form.view.boxes(box), strict=True):
        stored = tensors[key]
        assert len(inner) == stored.ndim
        assert all(0 <= r.start <= r.stop <= n for r, n in zip(inner, stored.shape, strict=True)), (key, inner)
        parts.append(stored[tuple(slice(r.start, r.stop) for r in inner)].copy())
    out = np.full(tuple(map(len, box)), 77, dtype)
    try:
        tensor.form.view.values(box, parts, out)
    except CheckpointError as e:
        raise tensor.explained(e) from e
    return out


def assert_same(got: np.ndarray, expected: np.ndarray) -> None:
    """Bit for bit, but for which NaN it is."""
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    unsigned = np.dtype(f"u{got.dtype.itemsize}")
    nan = np.isnan(got) & np.isnan(expected)
    differ = (got.view(unsigned) != expected.view(unsigned)) & ~nan
    assert not differ.any(), (np.argwhere(differ)[:5], got[differ][:5], expected[differ][:5])
