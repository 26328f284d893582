"""Leaves that keys do not fill, or only in part, if the caller allows it. Most loads do not import this."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bridge._errors import PlanError
from bridge._text import quote
from bridge.mapping.pattern import NamePatterns
from bridge.place.kept import KeptPart
from bridge.place.shards import spread
from bridge.place.work import canonical
from bridge.planning.plan import Plan

if TYPE_CHECKING:
    from bridge.api.arguments import Filler


def kept_value(name: str, made: Plan, model: Any, sharding: Any = None) -> Any:
    """A leaf that no key fills: made by the caller's function, or the template's own value.

    **Raises:** `PlanError` where it is none, or cannot go where it should.
    """
    value = _value(name, made, model)
    try:
        return spread(value, sharding)
    except ValueError as error:
        raise PlanError(
            f"leaf {quote(name)}, which no key fills,", error.args[0], "Give it that sharding, or move it before"
        ) from error


def kept_parts(made: Plan, model: Any) -> dict[str, KeptPart]:
    """What the leaves have that keys fill in part.

    **Raises:** `PlanError` where a template has no value, or a function gives another array.
    """
    return {
        name: KeptPart(name, made.leaves[name], holes, _value(name, made, model)) for name, holes in made.partly.items()
    }


def _value(name: str, made: Plan, model: Any) -> Any:
    """The value of a whole leaf, by the caller's function or the template."""
    found, spec = _filler(name, made), made.leaves[name]
    if found is None:
        if model is None:
            raise PlanError(
                f"leaf {quote(name)}",
                "is filled only in part, and there is no template to take the rest from",
                "Give a template, or allow_missing={pattern: function} to make them",
            )
        return model.kept(name)
    pattern, function = found
    value = function(name, spec)
    value = value if hasattr(value, "dtype") else np.asarray(value)
    dtype = canonical(np.dtype(value.dtype))
    if value.shape != spec.shape or dtype != spec.dtype:
        shown = f"{dtype}{list(value.shape)}"
        raise PlanError(
            f"leaf {quote(name)}",
            f": the function for {quote(pattern)} gave {shown}, the model has {spec}",
            "Return the shape and dtype that the model has",
        )
    return value


def _filler(name: str, made: Plan) -> tuple[str, Filler] | None:
    """The caller's function for a leaf that may be missing, and its pattern."""
    for pattern, function in made.request.fillers.items():
        if name in NamePatterns.of(pattern):
            return pattern, function
    return None
