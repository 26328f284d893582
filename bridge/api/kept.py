"""Leaves that no key fills, where the caller allows it: most loads fill all of them, and import none of this."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bridge._errors import PlanError
from bridge._text import quote
from bridge.mapping.pattern import NamePatterns
from bridge.place.shards import spread
from bridge.place.work import canonical
from bridge.planning.plan import Plan

if TYPE_CHECKING:
    from bridge.api.arguments import Filler


def kept_value(name: str, made: Plan, model: Any, sharding: Any = None) -> Any:
    """A leaf that no key fills: made by the caller's function, or the template's own value.

    **Raises:** `PlanError` where it is none, or cannot go where it should.
    """
    found, spec = _filler(name, made), made.leaves[name]
    if found is None:
        value = model.kept(name)
    else:
        pattern, function = found
        value = function(name, spec)
        value = value if hasattr(value, "dtype") else np.asarray(value)
        dtype = canonical(np.dtype(value.dtype))
        if value.shape != spec.shape or dtype != spec.dtype:
            shown = f"{dtype}{list(value.shape)}"
            raise PlanError(
                f"leaf {quote(name)}",
                f": the function for {quote(pattern)} gave {shown}, the model has {spec}",
                "Have it return that shape and dtype",
            )
    try:
        return spread(value, sharding)
    except ValueError as error:
        raise PlanError(
            f"leaf {quote(name)}, which no key fills,", error.args[0], "Give it that sharding, or move it before"
        ) from error


def _filler(name: str, made: Plan) -> tuple[str, Filler] | None:
    """The caller's function for a leaf that may be missing, and its pattern."""
    for pattern, function in made.request.fillers.items():
        if name in NamePatterns.of(pattern):
            return pattern, function
    return None
