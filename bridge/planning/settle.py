"""Which dtype and shape every leaf gets, once its keys are known; a cast that is not taken becomes a problem."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bridge._values import NamedTuple
from bridge.mapping.arrays import ArraySpec
from bridge.mapping.block import Block, Term
from bridge.mapping.indexmap import Shape, oversized
from bridge.mapping.problem import Conflict, Mismatched
from bridge.mapping.template import Spec, Template
from bridge.planning.policy import Canonical, DtypePolicy, narrows, refusal
from bridge.planning.prove import Proof


class Cast(NamedTuple):
    """A narrowing cast: values may be rounded on the way from `stored` to `dtype`."""

    leaf: str
    stored: np.dtype
    dtype: np.dtype


def settled(
    proof: Proof, model: Template | None, policy: DtypePolicy, canonical: Canonical
) -> tuple[dict[str, Spec], tuple[Cast, ...]]:
    """The spec that each leaf gets. Casts that are not taken become problems."""
    stored: dict[str, dict[np.dtype, tuple[str, Shape]]] = {}
    told = {conflict.subject for conflict in proof.problems.conflicts}
    for block in proof.blocks:
        for term in block.terms:
            for leaf, key, spec in _pairs(block, term):
                stored.setdefault(leaf, {}).setdefault(spec.dtype, (key, spec.shape))
                reason = oversized(spec.shape)
                if reason is not None and leaf not in told:
                    proof.problems.mismatched.append(Mismatched(leaf, key, spec.shape, spec.shape, reason))
    shapes = dict(proof.derived) if model is None else {name: spec.shape for name, spec in model.leaves.items()}
    leaves: dict[str, Spec] = {}
    casts: list[Cast] = []
    for leaf, shape in shapes.items():
        own = model.leaves[leaf].dtype if model is not None else None
        found = stored.get(leaf, {})
        if not found:
            leaves[leaf] = Spec(own if own is not None else np.dtype("f4"), shape)
            continue
        first = next(iter(found))
        dtype = canonical(policy.dtype(leaf, first, own))
        leaves[leaf] = Spec(dtype, shape)
        wanted = policy.wanted(leaf)
        if len(found) > 1 and (wanted == "checkpoint" or (wanted is None and own is None)):
            shown = ", ".join(f"{d.name} of '{key}'" for d, (key, _) in found.items())
            text = f"its keys have different dtypes ({shown}): say which it gets, dtype={{'{leaf}': …}}"
            proof.problems.conflicts.append(Conflict(leaf, text, tuple(key for key, _ in found.values())))
        for source, (key, stored_shape) in found.items():
            reason = refusal(source, dtype)
            if reason is not None:
                proof.problems.mismatched.append(Mismatched(leaf, key, stored_shape, stored_shape, reason))
            elif narrows(source, dtype):
                casts.append(Cast(leaf, source, dtype))
    return leaves, tuple(casts)


def _pairs(block: Block, term: Term) -> Iterator[tuple[str, str, ArraySpec]]:
    """Each leaf of a block, with the first key of each dtype and shape that fills it."""
    if len(block) == 1:
        yield block.leaves[0], term.keys[0], term.keys.spec(0)
        return
    table = term.keys.table
    _, first = np.unique(block.leaves.numbers * len(table.specs) + table.kinds[term.keys.numbers], return_index=True)
    for row in sorted(first.tolist()):
        yield block.leaves[row], term.keys[row], term.keys.spec(row)
