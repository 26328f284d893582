"""Which dtype each leaf gets, and whether the way there is one that the library takes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple, cast

import ml_dtypes
import numpy as np

from bridge._dtypes import DTYPES
from bridge._errors import PlanError
from bridge._text import quote
from bridge.mapping.arrays import Numbers
from bridge.mapping.indexmap import Shape, oversized
from bridge.mapping.pattern import NamePatterns
from bridge.mapping.problem import Conflict, Mismatched
from bridge.mapping.template import Spec, Template
from bridge.planning.prove import Proof

WantedDtype = np.dtype | str | None
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

    default: WantedDtype = None
    by_leaf: tuple[tuple[str, WantedDtype], ...] = ()

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

    def check(self, names: Collection[str], noun: str = "leaf") -> None:
        """Every pattern matches one of `names` at least. **Raises:** `PlanError`."""
        for pattern, _ in self.by_leaf:
            if not any(name in _names(pattern) for name in names):
                known = f" (the first is {quote(next(iter(names)))})" if names else ""
                raise PlanError(f"dtype: pattern {quote(pattern)}", f"matches no {noun}{known}", "Check its spelling")

    def wanted(self, leaf: str) -> WantedDtype:
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
def _names(pattern: str) -> NamePatterns:
    return NamePatterns.of(pattern)


_SPELLED = {
    "bf16": "bfloat16",
    "fp16": "float16",
    "fp32": "float32",
    "fp64": "float64",
    **{name: name for name in ("bfloat16", "float16", "float32", "float64")},
    "half": "float16",
    "float": "float32",
    "double": "float64",
}
"""What people write for a dtype, and PyTorch behind `torch.`."""


def _wanted(dtype: Any) -> WantedDtype:
    if dtype is None or (isinstance(dtype, str) and dtype == "checkpoint"):
        return dtype
    spelled = {"bf16": "bfloat16", "f16": "float16", "f32": "float32", "f64": "float64"}
    try:
        return np.dtype(spelled.get(dtype, dtype) if isinstance(dtype, str) else dtype)
    except (TypeError, ValueError, SyntaxError) as error:  # numpy reads texts as Python does
        meant = _SPELLED.get(str(dtype).rpartition(".")[2])
        if meant is not None:
            raise PlanError(f"dtype {dtype!r}", "is not a dtype", f"Did you mean {meant!r}?") from error
        raise PlanError(
            f"dtype {dtype!r}", "is not a dtype", "Give 'checkpoint', a dtype such as jnp.bfloat16, or a mapping"
        ) from error


def is_float(dtype: np.dtype) -> bool:
    """Whether `dtype` is a real floating type, ml_dtypes' included."""
    return dtype.kind == "f" or dtype == np.dtype(ml_dtypes.bfloat16) or dtype in _SCALED


def is_scaled(dtype: np.dtype) -> bool:
    """Whether values of `dtype` mean something only together with their scales."""
    return dtype in _SCALED


def refusal(stored: np.dtype, dtype: np.dtype) -> tuple[str, str] | None:
    """Why values of `stored` are not cast to `dtype`, and what a load can do; `None` where they are."""
    if stored in _PACKED:
        return f"several {stored.name} values share a byte of its file", "read it with ckpt[key] instead"
    if stored == dtype:
        return None
    if is_scaled(dtype):
        return (
            f"{stored.name} is not cast to {dtype.name}, whose codes mean nothing without scales",
            "give the leaf another dtype, or keep what is stored with quantized='keep'",
        )
    if is_scaled(stored):
        return f"{stored.name} means nothing without its scales", "load it as it is with dtype='checkpoint'"
    if is_float(stored) and is_float(dtype):
        return None
    if stored.kind in "iu" and dtype.kind in "iu":
        checked = stored.itemsize == 8 and dtype.itemsize == 4 and stored.kind == dtype.kind
        if np.can_cast(stored, dtype) or checked:
            return None
        return f"{stored.name} does not fit into {dtype.name}", ""
    return f"{stored.name} is not cast to {dtype.name}: float to float and int to wider int only", ""


def narrows(stored: np.dtype, dtype: np.dtype) -> bool:
    """Whether a cast that is taken may lose bits."""
    if stored == dtype or not (is_float(stored) and is_float(dtype)):
        return False
    a, b = _finfo(stored), _finfo(dtype)
    return not (b.nmant >= a.nmant and b.maxexp >= a.maxexp and b.minexp <= a.minexp)


@lru_cache(maxsize=64)
def _finfo(dtype: np.dtype) -> Any:
    return cast("Any", ml_dtypes.finfo)(dtype)  # its stubs do not say what it has


class Cast(NamedTuple):
    """A narrowing cast: values may be rounded on the way from `stored` to `dtype`."""

    leaf: str
    stored: np.dtype
    dtype: np.dtype


class _StoredDtypes:
    """For each leaf the first of its keys, -1 without one, and whether other keys of it have other dtypes."""

    __slots__ = ("first", "mixed")

    def __init__(self, first: Numbers, mixed: Numbers) -> None:
        self.first, self.mixed = first, mixed

    @classmethod
    def of(cls, proof: Proof, dtypes: Numbers) -> _StoredDtypes:
        """`dtypes` numbers the dtype of each key."""
        first = np.full(len(proof.leaves.table.names), -1, np.intp)
        mixed = np.zeros(len(first), bool)
        for block in proof.blocks:
            leaves = block.leaves.numbers
            for term in block.terms:
                fresh = np.flatnonzero(first[leaves] < 0)[::-1]  # the first row of several counts
                first[leaves[fresh]] = term.keys.numbers[fresh]
                mixed[leaves[dtypes[first[leaves]] != dtypes[term.keys.numbers]]] = True
        return cls(first, mixed)


def settled(
    proof: Proof, model: Template | None, policy: DtypePolicy, canonical: Canonical
) -> tuple[dict[str, Spec], tuple[Cast, ...]]:
    """The spec that each leaf gets. Casts that are not taken become problems.

    **Raises:** `PlanError` for a pattern of `policy` that matches no leaf.
    """
    policy.check(proof.leaves.table.names)
    _report_oversized(proof)
    table = proof.keys
    known: dict[np.dtype, int] = {}
    numbered = np.array([known.setdefault(spec.dtype, len(known)) for spec in table.specs], np.intp)
    dtypes = numbered[table.kinds]
    stored = _StoredDtypes.of(proof, dtypes)
    settling = _Settling(proof, model, policy, canonical)
    by_kind: dict[tuple[int, int], Spec] = {}
    kinds: list[int] = dtypes[stored.first].tolist() if len(table) else []
    own: list[int] = proof.leaves.table.kinds.tolist() if model is not None else []
    for number, (name, first) in enumerate(zip(proof.leaves.table.names, stored.first.tolist(), strict=True)):
        # Leaves of one spec whose keys have one dtype get one spec, unless a pattern has a say in it.
        alike = (own[number], kinds[number]) if own and first >= 0 else None
        spec = None if alike is None or stored.mixed[number] or policy.by_leaf else by_kind.get(alike)
        if spec is None:
            clean, spec = settling.leaf(number, name, first, mixed=bool(stored.mixed[number]))
            if clean and spec is not None and alike is not None and not stored.mixed[number]:
                by_kind[alike] = spec
        if spec is not None:
            settling.leaves[name] = spec
    return settling.leaves, tuple(settling.casts)


class _Settling:
    """The leaves settled so far, and their narrowing casts."""

    def __init__(self, proof: Proof, model: Template | None, policy: DtypePolicy, canonical: Canonical) -> None:
        self.proof, self.model, self.policy, self.canonical = proof, model, policy, canonical
        self.leaves: dict[str, Spec] = {}
        self.casts: list[Cast] = []

    def leaf(self, number: int, name: str, first: int, *, mixed: bool) -> tuple[bool, Spec | None]:
        """The spec of one leaf whose first key is `first`, and whether nothing is to be said of it."""
        proof, policy, shape = self.proof, self.policy, self.proof.leaves.shape(number)
        own = None if self.model is None else proof.leaves.table.spec(number).dtype
        if shape is None:
            return False, None
        if first < 0:
            return False, Spec(own if own is not None else np.dtype("f4"), shape)
        keys = {proof.keys.spec(first).dtype: first} if not mixed else dict(_keys_by_dtype(proof, number))
        dtype, wanted = self.canonical(policy.dtype(name, next(iter(keys)), own)), policy.wanted(name)
        names = proof.keys.names
        if len(keys) > 1 and (wanted == "checkpoint" or (wanted is None and own is None)):
            shown = ", ".join(f"{d.name} of '{names[key]}'" for d, key in keys.items())
            text = f"its keys have different dtypes ({shown}): say which it gets, dtype={{'{name}': …}}"
            proof.problems.conflicts.append(Conflict(name, text, tuple(names[key] for key in keys.values())))
        clean = True
        for source, key in keys.items():
            reason, stored_shape = refusal(source, dtype), proof.keys.spec(key).shape
            if reason is not None:
                clean = False
                text = ": ".join(filter(None, reason))
                proof.problems.mismatched.append(Mismatched(name, names[key], stored_shape, stored_shape, text))
            elif narrows(source, dtype):
                clean = False
                self.casts.append(Cast(name, source, dtype))
        return clean, Spec(dtype, shape)


def _keys_by_dtype(proof: Proof, leaf: int) -> Iterator[tuple[np.dtype, int]]:
    """The dtypes of a leaf's keys, each with the first key that has it."""
    seen: set[np.dtype] = set()
    for block in proof.blocks:
        rows = np.flatnonzero(block.leaves.numbers == leaf)
        for term in block.terms:
            for key in term.keys.numbers[rows].tolist():
                dtype = proof.keys.spec(key).dtype
                if dtype not in seen:
                    seen.add(dtype)
                    yield dtype, key


def _report_oversized(proof: Proof) -> None:
    """Keys that no array can have the shape of, though they have no elements."""
    reasons = {kind: oversized(spec.shape) for kind, spec in enumerate(proof.keys.specs)}
    large = np.array([kind for kind, reason in reasons.items() if reason is not None], np.intp)
    if not len(large):
        return
    told = {conflict.subject for conflict in proof.problems.conflicts}
    for block in proof.blocks:
        for term in block.terms:
            kinds = proof.keys.kinds[term.keys.numbers]
            for row in np.flatnonzero(np.isin(kinds, large)).tolist():
                leaf, spec = block.leaves[row], term.keys.spec(row)
                if leaf not in told:
                    reason = reasons[int(kinds[row])] or ""
                    shape: Shape = spec.shape
                    proof.problems.mismatched.append(Mismatched(leaf, term.keys[row], shape, shape, reason))
