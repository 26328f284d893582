"""Values on their way: casts, scales and sums, each into its place of a leaf."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, cast

import ml_dtypes
import numpy as np

from bridge._errors import CheckpointError
from bridge.stream.strides import copy

_BF16 = np.dtype(ml_dtypes.bfloat16)


class DoesNotFitError(CheckpointError):
    """A value that a dtype has no room for. Whoever knows the direction says what to do about it."""

    def __init__(self, subject: str, problem: str, advice: str | None = None, *, whole: bool = False) -> None:
        """**Arguments:** `whole`: whether the dtype is one of integers."""
        super().__init__(subject, problem, advice)
        self.whole = whole


def assign(out: np.ndarray, values: np.ndarray) -> None:
    """Write `values` to `out`, cast as a plan allows; both have the same shape.

    **Raises:** `DoesNotFitError` where an integer does not fit, or a finite float would become infinite.
    """
    if values.dtype == out.dtype:
        copy(out, values)
        return
    if out.dtype.kind in "iu" and values.size and not np.can_cast(values.dtype, out.dtype):
        _check_range(values, out.dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        copy(out, values)
    if _is_less(out.dtype, values.dtype):
        _check_finite(out, [values])


class UntiedError(CheckpointError):
    """Two keys are tied, and their values differ. `key` is the one that was compared with what the other has filled."""

    def __init__(self, subject: str, problem: str, advice: str | None = None, *, key: str = "") -> None:
        super().__init__(subject, problem, advice)
        self.key = key


def _check_range(values: np.ndarray, dtype: np.dtype) -> None:
    limits, low, high = np.iinfo(dtype), values.min().item(), values.max().item()
    if not (limits.min <= low and high <= limits.max):  # so a NaN does not pass either
        outside = high if limits.min <= low else low
        raise DoesNotFitError("a value", f"holds {outside}, which does not fit into {dtype.name}", whole=True)


@lru_cache(maxsize=64)
def _is_less(dtype: np.dtype, other: np.dtype) -> bool:
    """Whether the largest value of `dtype`, a float, is less than that of `other`."""
    if dtype.kind in "iub" or other.kind in "iub":
        return False
    largest, others = (float(cast("Any", ml_dtypes.finfo)(each).max) for each in (dtype, other))
    return largest < others


def _check_finite(out: np.ndarray, terms: Sequence[np.ndarray], by: str = "") -> None:
    """Whether `out` is finite wherever all `terms` are, which it was made of.

    Nearly always all of it is finite, and its bits tell: as signed integers the positive floats are in their order,
    as unsigned ones the negative ones are behind them, and what is not finite comes last. Two reads of the output,
    just written, cost a tenth of a nanosecond a value.

    **Raises:** `DoesNotFitError`.
    """
    if not out.size:
        return
    signed, unsigned = (np.dtype(f"{kind}{out.dtype.itemsize}") for kind in "iu")
    limits = np.array([np.inf, -np.inf]).astype(out.dtype)
    if out.view(signed).max() < limits.view(signed)[0] and out.view(unsigned).max() < limits.view(unsigned)[1]:
        return
    lost = ~np.isfinite(out)
    for term in terms:
        lost &= np.isfinite(term)
    if lost.any():
        value = float(terms[0][lost][0])
        raise DoesNotFitError(
            "a value", f"holds {value:.6g}, which {by}becomes infinite in {out.dtype.name}", whole=False
        )


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

    **Raises:** `DoesNotFitError` where an integer does not fit, or finite terms come to what is not finite.
    """
    whole = out.dtype.kind in "iu" and all(term.dtype.kind in "iu" for term in terms) and isinstance(scale, int)
    if whole and isinstance(add, int):
        # Python's integers do not wrap: a counter plus 2**30 is right or an error.
        exact = [sum(values) * scale + add for values in zip(*(term.ravel().tolist() for term in terms), strict=True)]
        limits = np.iinfo(out.dtype)
        outside = [value for value in exact if not limits.min <= value <= limits.max]
        if outside:
            by = f"scale={scale} and add={add}"
            raise DoesNotFitError(
                "a value", f"becomes {outside[0]} by {by}, which does not fit into {out.dtype.name}", whole=True
            )
        np.copyto(out, np.array(exact, out.dtype).reshape(out.shape))
        return
    wide = np.dtype("f8") if any(term.dtype.itemsize == 8 for term in (*terms, out)) else np.dtype("f4")
    with np.errstate(over="ignore", invalid="ignore"):
        total = terms[0].astype(wide)
        for term in terms[1:]:
            total += term.astype(wide)
        if scale != 1:
            total *= scale
        if add != 0:
            total += add
    _settle(out, total, terms, "in a sum " if (scale, add) == (1, 0) else f"with scale={scale} and add={add} ")


def _settle(out: np.ndarray, total: np.ndarray, terms: Sequence[np.ndarray], by: str) -> None:
    """Write `total`, computed from `terms`, to `out`."""
    if out.dtype.kind in "iub":
        assign(out, total)
        return
    with np.errstate(over="ignore", invalid="ignore"):
        copy(out, total)
    _check_finite(out, terms, by)


def check_equal(leaf: np.ndarray, values: np.ndarray) -> None:
    """Compare a tied tensor with the leaf that another key has filled, to the last bit.

    **Raises:** `UntiedError` where they differ.
    """
    if values.dtype != leaf.dtype:
        cast = np.empty(leaf.shape, leaf.dtype)
        assign(cast, values)
        values = cast
    bits = np.dtype(f"u{leaf.dtype.itemsize}")
    if not np.array_equal(leaf.view(bits), values.view(bits)):
        raise UntiedError(
            "a key",
            "is tied to a leaf that another key fills, but their values differ: the weights are not tied",
            "Give each a leaf of its own, or drop one on purpose with '-> _'",
        )


def restore(values: np.ndarray, scale: float | int, add: float | int, out: np.ndarray) -> None:
    """Write `(values - add) / scale` to `out`: what `combine` did to one term, undone as far as rounding lets it.

    **Raises:** `DoesNotFitError` where an integer does not fit, or a finite float would become infinite.
    """
    if scale == 1 and add == 0:
        assign(out, values)
        if out.dtype == _BF16 and values.dtype in (np.float32, np.float64):
            _keep_nan(out, values)
    elif values.dtype.kind in "iu" and isinstance(add, int) and scale == 1:
        combine([values], 1, -add, out)
    else:
        wide = np.dtype("f8") if 8 in (values.dtype.itemsize, out.dtype.itemsize) else np.dtype("f4")
        with np.errstate(over="ignore", invalid="ignore"):
            total = values.astype(wide)
            total -= add
            total /= scale
        _settle(out, total, [values], f"with scale={scale} and add={add} undone ")
