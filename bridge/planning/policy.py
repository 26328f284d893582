"""Which dtype each leaf gets, and whether the way there is one that the library takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, cast

import ml_dtypes
import numpy as np

from bridge._dtypes import DTYPES
from bridge._errors import PlanError
from bridge._values import NamedTuple
from bridge.mapping.pattern import Names

Wanted = np.dtype | str | None
Canonical = Callable[[np.dtype], np.dtype]

# Without its scale such a value means nothing: casting it would be a wrong tensor that looks right.
_SCALED = frozenset(
    np.dtype(name)
    for name in (
        ml_dtypes.float8_e4m3fn,
        ml_dtypes.float8_e4m3fnuz,
        ml_dtypes.float8_e5m2,
        ml_dtypes.float8_e5m2fnuz,
        ml_dtypes.float8_e8m0fnu,
        ml_dtypes.float4_e2m1fn,
        ml_dtypes.float6_e2m3fn,
        ml_dtypes.float6_e3m2fn,
    )
)
_PACKED = frozenset(dtype.numpy for dtype in DTYPES.values() if dtype.packed)


class DtypePolicy(NamedTuple):
    """What `dtype=` says: `None`, `"checkpoint"`, a dtype, or dtypes by leaf pattern (the first that matches)."""

    default: Wanted = None
    by_leaf: tuple[tuple[str, Wanted], ...] = ()

    @classmethod
    def of(cls, dtype: Any) -> DtypePolicy:
        """The policy that a `dtype` argument means. **Raises:** `PlanError` for what is no dtype."""
        if isinstance(dtype, DtypePolicy):
            return dtype
        if isinstance(dtype, Mapping):
            by_leaf = cast("Mapping[str, Any]", dtype)
            for pattern in by_leaf:
                _names(pattern)
            return cls(None, tuple((pattern, _wanted(value)) for pattern, value in by_leaf.items()))
        return cls(_wanted(dtype))

    def wanted(self, leaf: str) -> Wanted:
        """What the policy says for `leaf`."""
        for pattern, dtype in self.by_leaf:
            if leaf in _names(pattern):
                return dtype
        return self.default

    def dtype(self, leaf: str, stored: np.dtype, own: np.dtype | None) -> np.dtype:
        """The dtype that `leaf` gets: `stored` is the checkpoint's, `own` the template's."""
        wanted = self.wanted(leaf)
        if isinstance(wanted, np.dtype):
            # A float dtype is about weights: counters and masks keep what they are.
            if is_float(wanted) and not is_float(stored):
                return own if own is not None else stored
            return wanted
        return stored if wanted == "checkpoint" or own is None else own


@lru_cache(maxsize=256)
def _names(pattern: str) -> Names:
    return Names.of(pattern)


def _wanted(dtype: Any) -> Wanted:
    if dtype is None or (isinstance(dtype, str) and dtype == "checkpoint"):
        return dtype
    spelled = {"bf16": "bfloat16", "f16": "float16", "f32": "float32", "f64": "float64"}
    try:
        return np.dtype(spelled.get(dtype, dtype) if isinstance(dtype, str) else dtype)
    except TypeError as error:
        raise PlanError(
            f"dtype {dtype!r} is no dtype: give 'checkpoint', a dtype such as jnp.bfloat16, or a mapping"
        ) from error


def is_float(dtype: np.dtype) -> bool:
    """Whether `dtype` is a real floating type, ml_dtypes' included."""
    return dtype.kind == "f" or dtype == np.dtype(ml_dtypes.bfloat16) or dtype in _SCALED


def is_scaled(dtype: np.dtype) -> bool:
    """Whether values of `dtype` mean something only together with their scales."""
    return dtype in _SCALED


def refusal(stored: np.dtype, dtype: np.dtype) -> str | None:
    """Why values of `stored` are not cast to `dtype`; `None` where they are."""
    if stored in _PACKED:
        return f"several {stored.name} values share a byte of its file: read it with ckpt[key] instead"
    if stored == dtype:
        return None
    if is_scaled(stored) or is_scaled(dtype):
        return f"{stored.name} means nothing without its scales: load it as it is with dtype='checkpoint'"
    if is_float(stored) and is_float(dtype):
        return None
    if stored.kind in "iu" and dtype.kind in "iu":
        checked = stored.itemsize == 8 and dtype.itemsize == 4 and stored.kind == dtype.kind
        if np.can_cast(stored, dtype) or checked:
            return None
        return f"{stored.name} does not fit into {dtype.name}"
    return f"{stored.name} is not cast to {dtype.name}: float to float and int to wider int only"


def narrows(stored: np.dtype, dtype: np.dtype) -> bool:
    """Whether a cast that is taken may lose bits."""
    if stored == dtype or not (is_float(stored) and is_float(dtype)):
        return False
    a, b = _finfo(stored), _finfo(dtype)
    return not (b.nmant >= a.nmant and b.maxexp >= a.maxexp and b.minexp <= a.minexp)


@lru_cache(maxsize=64)
def _finfo(dtype: np.dtype) -> Any:
    return cast("Any", ml_dtypes.finfo)(dtype)  # its stubs do not say what it has
