"""The leaves of a `State` by name. Its tree paths hold none: a model's `StateIndex`es say which entry is whose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import jax.tree_util as jtu

from bridge._errors import PlanError
from bridge._text import quote
from bridge.model.template import Leaf, joined, walk

PAIR = "Pass the pair (model, state) that eqx.nn.make_with_state gives"


def refuse_stateless(like: Any, indices: Sequence[Leaf]) -> NoReturn:
    """Refuse a model whose layers keep state that was not given.

    **Raises:** `PlanError`.
    """
    name = indices[0].name
    more = f" (and {len(indices) - 1} more)" if len(indices) > 1 else ""
    raise PlanError(
        type(like).__name__,
        (
            f"keeps state at {quote(name)}{more}, such as the running statistics of a BatchNorm, but its "
            "state was not given"
        ),
        PAIR,
    )


def state_leaves(state: Any, indices: Sequence[Leaf], start: int) -> list[Leaf]:
    """The leaves of `state`, each named by the path of its index. `start` is the place of the first among all leaves.

    **Raises:** `PlanError` where the state was used before, or does not belong to the model.
    """
    try:
        values, structure = jtu.tree_flatten(state)
    except ValueError as error:
        raise PlanError("the state", "was used before, and a State is single use", PAIR) from error
    # The same state with the places of its leaves for values: `get` then tells whose each leaf is.
    places = jtu.tree_unflatten(structure, range(len(values)))
    found: dict[int, Leaf] = {}
    for index in indices:
        try:
            entry = places.get(index.value)
        except KeyError as error:
            raise PlanError(
                "the state", f"is not the state of this model: it has no entry for {quote(index.name)}", PAIR
            ) from error
        for leaf in walk(entry).leaves:
            name, alias = joined(index.name, leaf.name), joined(index.alias, leaf.alias)
            found.setdefault(leaf.value, Leaf(name, alias, values[leaf.value], start + leaf.value))
    if len(found) < len(values):
        raise PlanError(
            "the state",
            f"has {len(values)} arrays, the model's layers point to {len(found)} of them",
            "Pass (model, state.substate(model))",
        )
    return [found[place] for place in sorted(found)]
