"""The `Template` of a model, and the model again with its arrays filled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.tree_util as jtu
import numpy as np

from bridge._errors import PlanError
from bridge._text import quote
from bridge.mapping.template import Spec, Template
from bridge.model.names import Leaf, Walked, is_array, kind_of, walk

if TYPE_CHECKING:
    from bridge.model.placing import Placing


class Model(NamedTuple):
    """A template model taken apart: what the mapping needs to know of it, and what it takes to put it together."""

    template: Template
    arrays: Mapping[str, Leaf]
    like: Any

    def abstract(self, name: str) -> bool:
        """Whether a leaf has a shape and no value."""
        return isinstance(self.arrays[name].value, jax.ShapeDtypeStruct)

    def kept(self, name: str) -> Any:
        """The template's own value of a leaf. **Raises:** `PlanError` where it is abstract and has none."""
        value = self.arrays[name].value
        if isinstance(value, jax.ShapeDtypeStruct):
            raise PlanError(
                f"leaf {quote(name)} may be missing, but the template is abstract and has no value to keep: give a "
                "concrete template, or allow_missing={pattern: function} to make one"
            )
        return value

    def filled(self, values: Mapping[str, Any]) -> Any:
        """The model with the arrays of `values`, by leaf name; all else is the template's."""
        leaves, structure = jtu.tree_flatten(self.like)
        for name, leaf in self.arrays.items():
            leaves[leaf.place] = values[name]
        return jtu.tree_unflatten(structure, leaves)


def take_apart(like: Any) -> Model:
    """Read the leaves of `like`, a pytree or a `(model, state)` pair.

    **Raises:** `PlanError` where two leaves have one name, where a model's state is not given or not its own.
    """
    model, state = _split(like)
    walked = walk(model)
    if state is not None or walked.indices:
        _add_state(walked, like, state)
    kind, placing = type(model).__name__, _placing(walked)
    arrays = _arrays(walked, {} if placing is None else placing.shown, kind)
    leaves = {name: Spec(np.dtype(leaf.value.dtype), tuple(leaf.value.shape)) for name, leaf in arrays.items()}
    if placing is None:
        return Model(Template(leaves, kind=kind), arrays, like)
    own = {leaf.alias: name for name, leaf in arrays.items() if leaf.alias != name}
    return Model(placing.template(leaves, own, kind), arrays, like)


def _split(like: Any) -> tuple[Any, Any]:
    """The model and its state; `None` for a tree that has no state."""
    if isinstance(like, tuple) and len(like) == 2 and kind_of(type(like[1])) == "state":
        return like
    return like, None


def _add_state(walked: Walked, like: Any, state: Any) -> None:
    """The leaves of the model's state among the others. **Raises:** `PlanError` where it was not given."""
    from bridge.model.state import refuse_stateless, state_leaves  # few models have any

    if state is None:
        refuse_stateless(like, walked.indices)
    walked.leaves += state_leaves(state, walked.indices, walked.count)


def _placing(walked: Walked) -> Placing | None:
    """The layouts of the tree's modules. One of plain containers has none, and needs no Equinox."""
    if not walked.modules:
        return None
    from bridge.model.placing import Placing

    return Placing(walked.modules)


def _arrays(walked: Walked, shown: Mapping[str, str], kind: str) -> dict[str, Leaf]:
    """The arrays by name; `shown` are the names that layouts give."""
    arrays: dict[str, Leaf] = {}
    for leaf in walked.leaves:
        if not is_array(leaf.value):
            continue
        name = shown.get(leaf.name, leaf.name)
        if name in arrays:
            raise PlanError(
                f"leaf {quote(name)} stands twice in {kind}, as {quote(arrays[name].alias)} and as "
                f"{quote(leaf.alias)}: rename one of the attributes"
            )
        arrays[name] = leaf
    return arrays
