"""Values on their way: casts, scales and sums, each into its place of a leaf."""

from __future__ import annotations

from collections.abc import Sequence

import ml_dtypes
import numpy as np

from bridge._errors import CheckpointError
from bridge.stream.strides import copy

_BF16 = np.dtype(ml_dtypes.bfloat16)


class DoesNotFitError(CheckpointError):
    """A value that an integer dtype has no room for. Whoever knows the direction says what to do about it."""


def assign(out: np.ndarray, values: np.ndarray) -> None:
    """Write `values` to `out`, cast as a plan allows; both have the same shape.

    **Raises:** `DoesNotFitError` where an integer does not fit.
    """
    if values.dtype == out.dtype:
        copy(out, values)
        return
    if out.dtype.kind in "iu" and values.size and not np.can_cast(values.dtype, out.dtype):
        limits = np.iinfo(out.dtype)
        low, high = int(values.min()), int(values.max())
        if low < limits.min or high > limits.max:
            raise DoesNotFitError(
                f"holds {low if low < limits.min else high}, which does not fit into {out.dtype.name}"
            )
    with np.errstate(over="ignore", invalid="ignore"):
        # A float too large for the narrower type becomes infinity, as everywhere else; the plan lists the cast.
        copy(out, values)


def _keep_nan(out: np.ndarray, values: np.ndarray) -> None:
    """Give NaNs the bits that they had as bfloat16 before they were widened: casting makes one NaN of all."""
    nan = np.isnan(values)
    if nan.any():
        bits = (values[nan].astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
        # A NaN that only the lower half tells from infinity has to stay one.
        bits[bits & 0x7F == 0] |= 0x40
        out[nan] = bits.view(_BF16)


def combine(terms: Sequence[np.ndarray], scale: float | int, add: float | int, out: np.ndarray) -> None:
    """Write `sum(terms) * scale + add` to `out`, computed in at least float32, or exactly where all is integer.

    **Raises:** `DoesNotFitError` where an integer does not fit.
    """
    whole = out.dtype.kind in "iu" and all(term.dtype.kind in "iu" for term in terms) and isinstance(scale, int)
    if whole and isinstance(add, int):
        # Python's integers do not wrap: a counter plus 2**30 is right or an error.
        exact = [sum(values) * scale + add for values in zip(*(term.ravel().tolist() for term in terms), strict=True)]
        limits = np.iinfo(out.dtype)
        outside = [value for value in exact if not limits.min <= value <= limits.max]
        if outside:
            by = f"scale={scale} and add={add}"
            raise DoesNotFitError(f"becomes {outside[0]} by {by}, which does not fit into {out.dtype.name}")
        np.copyto(out, np.array(exact, out.dtype).reshape(out.shape))
        return
    wide = np.dtype("f8") if any(term.dtype.itemsize == 8 for term in (*terms, out)) else np.dtype("f4")
    total = terms[0].astype(wide)
    for term in terms[1:]:
        total += term.astype(wide)
    if scale != 1:
        total *= scale
    if add != 0:
        total += add
    assign(out, total)


def check_equal(leaf: np.ndarray, values: np.ndarray) -> None:
    """Compare a tied tensor with the leaf that another key has filled, to the last bit.

    **Raises:** `CheckpointError` where they differ.
    """
    if values.dtype != leaf.dtype:
        cast = np.empty(leaf.shape, leaf.dtype)
        assign(cast, values)
        values = cast
    bits = np.dtype(f"u{leaf.dtype.itemsize}")
    if not np.array_equal(leaf.view(bits), values.view(bits)):
        raise CheckpointError(
            "is tied to a leaf that another key fills, but their values differ: the weights are not tied. "
            "Give each a leaf of its own, or drop one on purpose with '-> _'"
        )


def restore(values: np.ndarray, scale: float | int, add: float | int, out: np.ndarray) -> None:
    """Write `(values - add) / scale` to `out`: what `combine` did to one term, undone as far as rounding lets it.

    **Raises:** `DoesNotFitError` where an integer does not fit.
    """
    if scale == 1 and add == 0:
        assign(out, values)
        if out.dtype == _BF16 and values.dtype in (np.float32, np.float64):
            _keep_nan(out, values)
    elif values.dtype.kind in "iu" and isinstance(add, int) and scale == 1:
        combine([values], 1, -add, out)
    else:
        wide = np.dtype("f8") if 8 in (values.dtype.itemsize, out.dtype.itemsize) else np.dtype("f4")
        total = values.astype(wide)
        total -= add
        total /= scale
        assign(out, total)
