"""`skeleton`: classes for a checkpoint that has no model yet, from headers alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Unpack

from bridge.api.load import opened
from bridge.api.planned import planned, request_of
from bridge.proposing.leftover import computed
from bridge.proposing.skeleton import skeleton_text

if TYPE_CHECKING:
    from bridge.api.arguments import OpenOptions, Source


def skeleton(source: Source, quantized: str | Mapping[str, Any] | None = None, **options: Unpack[OpenOptions]) -> str:
    """Python code to begin with: Equinox classes with the fields and shapes of a checkpoint, and its `RULES`.

    **Arguments:** as for `bridge.plan`.

    **Returns:** the text of a module that can be imported. `bridge.plan(source, eqx.filter_eval_shape(make), RULES)` is
    ok.

    **Raises:** the errors of `bridge.plan`.
    """
    with opened(source, **options) as stored:
        request = request_of(None, None, (), (), None, quantized)
        ckpt, _, _ = planned(stored, None, None, request)
        dropped, consumed = computed(ckpt.specs)
        return skeleton_text(
            str(ckpt.source), {key: spec for key, spec in ckpt.specs.items() if key not in consumed}, dropped
        )
