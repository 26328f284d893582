"""Leaves by name: a walk over any pytree that says what PyTorch would call each array."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import equinox as eqx
import jax
import jax.tree_util as jtu
import numpy as np


@dataclass(frozen=True, slots=True)
class Leaf:
    """One leaf: its name as PyTorch would write it, keystr's own spelling, and its place among all leaves."""

    name: str
    alias: str
    value: Any
    place: int


@dataclass(slots=True)
class Walked:
    """All leaves of a tree, in JAX's order, and its modules by name (outermost first)."""

    leaves: list[Leaf] = field(default_factory=list[Leaf])
    modules: list[tuple[str, Any]] = field(default_factory=list[tuple[str, Any]])


def walk(tree: Any) -> Walked:
    """Name every leaf of `tree`.

    A name is `jax.tree_util.keystr(path, simple=True, separator=".")` without what PyTorch's names do not show: the
    `.layers` of `eqx.nn.Sequential` and the `.pytree` of `eqx.nn.Shared`.
    """
    walked = Walked()
    _walk(tree, (), (), walked)
    return walked


def is_array(value: Any) -> bool:
    """Whether a leaf is an array that a checkpoint can fill: PRNG keys and Python numbers are not."""
    if not isinstance(value, jax.Array | np.ndarray | jax.ShapeDtypeStruct):
        return False
    return not jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key)


def _walk(node: Any, name: tuple[str, ...], alias: tuple[str, ...], walked: Walked) -> None:
    if isinstance(node, eqx.Module):
        walked.modules.append((".".join(name), node))
    children = list(_children(node))
    if len(children) == 1 and children[0][1] is node:
        walked.leaves.append(Leaf(".".join(name), ".".join(alias), node, len(walked.leaves)))
        return
    for path, child in children:
        shown = tuple(jtu.keystr((entry,), simple=True) for entry in path)
        _walk(child, (*name, *_visible(node, shown)), (*alias, *shown), walked)


def _children(node: Any) -> Iterator[tuple[Any, Any]]:
    """The direct children of a node, with their paths; a leaf is its own only child."""
    yield from jtu.tree_leaves_with_path(node, is_leaf=lambda child: child is not node)


def _visible(node: Any, shown: tuple[str, ...]) -> tuple[str, ...]:
    """What of a child's path PyTorch's names would show."""
    hidden = {eqx.nn.Sequential: "layers", eqx.nn.Shared: "pytree"}
    for kind, attribute in hidden.items():
        if isinstance(node, kind) and shown[:1] == (attribute,):
            return shown[1:]
    return shown
