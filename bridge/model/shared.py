"""`eqx.nn.Shared`: which leaves stand for arrays that it has taken out of the tree.

PyTorch writes a shared parameter once for each place it stands at. The model keeps one of them, so the other keys are
ties: names that lead to the kept leaf.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.tree_util as jtu

from bridge.model.template import is_array, joined, walk


class Tie(NamedTuple):
    """The name of a place that was emptied, the leaf that is shown there, and how that is transposed, if it is."""

    copy: str
    kept: str
    permutation: tuple[int, ...] | None


class _NodeMark:
    """Stands for the leaf at one place while `where` looks for its nodes."""

    __slots__ = ("place",)

    def __init__(self, place: int) -> None:
        self.place = place


def ties(shared: eqx.nn.Shared, at: str) -> Iterator[Tie]:
    """The ties of one `Shared`, which stands `at` a name of the model."""
    leaves, structure = jtu.tree_flatten(shared.pytree)
    marked = shared.where(jtu.tree_unflatten(structure, [_NodeMark(place) for place in range(len(leaves))]))
    single = isinstance(marked, _NodeMark)
    names = {leaf.place: leaf.name for leaf in walk(shared.pytree).leaves}
    for number, name, place, permutation in _sources(shared, leaves, structure, single=single):
        mark = marked if single else marked[number]
        if isinstance(mark, _NodeMark) and mark.place in names:
            yield Tie(joined(at, joined(names[mark.place], name)), joined(at, names[place]), permutation)


def _sources(
    shared: eqx.nn.Shared, leaves: list[Any], structure: Any, *, single: bool
) -> list[tuple[int, str, int, tuple[int, ...] | None]]:
    """For each array that `get` gives: of which node, its name there, and the place of the leaf that it is."""
    places = [place for place, leaf in enumerate(leaves) if is_array(leaf)]
    found: list[tuple[int, str]] = []

    def traced(*arrays: jax.Array) -> list[Any]:
        filled = list(leaves)
        for place, array in zip(places, arrays, strict=True):
            filled[place] = array
        nodes = shared.get(jtu.tree_unflatten(structure, filled))
        given = [leaf for node in ([nodes] if single else nodes) for leaf in walk(node).leaves]
        counts = [len(walk(node).leaves) for node in ([nodes] if single else nodes)]
        numbers = [number for number, count in enumerate(counts) for _ in range(count)]
        arrays_given = [(number, leaf) for number, leaf in zip(numbers, given, strict=True) if is_array(leaf.value)]
        found.extend((number, leaf.name) for number, leaf in arrays_given)
        return [leaf.value for _, leaf in arrays_given]

    try:
        jaxpr = jax.make_jaxpr(traced)(*(jax.ShapeDtypeStruct(leaves[p].shape, leaves[p].dtype) for p in places)).jaxpr
    except (TypeError, ValueError, IndexError):
        # A `get` that computes, inside a stack of modules: it runs only under its `vmap`. Such a tie needs a rule.
        return []
    sources: list[tuple[int, str, int, tuple[int, ...] | None]] = []
    for (number, name), out in zip(found, jaxpr.outvars, strict=True):
        permutation = None
        for equation in jaxpr.eqns:
            if equation.outvars[0] is out and equation.primitive.name == "transpose":
                permutation, out = tuple(equation.params["permutation"]), equation.invars[0]
                break
        sources += [
            (number, name, place, permutation) for place, var in zip(places, jaxpr.invars, strict=True) if var is out
        ]
    return sources
