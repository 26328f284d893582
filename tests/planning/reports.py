"""Plans of a model called Llama and a checkpoint called my-model/, and their reports."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from bridge._errors import PlanError
from bridge.mapping.pattern import NamePatterns
from bridge.mapping.template import Spec, Template
from bridge.planning.plan import Plan, PlanRequest, make_plan
from bridge.planning.policy import DtypePolicy
from bridge.rules.rule import Rule

F4 = np.dtype("f4")
Shapes = Mapping[str, tuple[int, ...]]


def spec(shape: tuple[Any, ...]) -> Spec:
    """A spec; a dtype may stand in front of the extents."""
    if shape and isinstance(shape[0], np.dtype):
        return Spec(shape[0], shape[1:])
    return Spec(F4, shape)


def plan(
    keys: Shapes,
    leaves: Shapes | None,
    rules: Sequence[str] = (),
    *,
    dtype: Any = None,
    allow: Sequence[str] = (),
    **more: Any,
) -> Plan:
    model = None if leaves is None else Template({n: spec(s) for n, s in leaves.items()}, kind="Llama", **more)
    request = PlanRequest(tuple(map(Rule, rules)), DtypePolicy.of(dtype), allow_unexpected=NamePatterns.of(allow))
    return make_plan({key: spec(shape) for key, shape in keys.items()}, model, request, source="my-model/")


def report(*args: Any, **kwargs: Any) -> str:
    made = plan(*args, **kwargs)
    assert not made.ok
    with pytest.raises(PlanError) as caught:
        made.check()
    assert caught.value.missing == made.missing
    assert caught.value.unexpected == made.unexpected
    assert caught.value.mismatched == made.mismatched
    assert str(made).endswith("\n\n" + str(caught.value))
    return str(caught.value)


def shows(text: str, expected: str) -> None:
    assert text == textwrap.dedent(expected).strip("\n")
