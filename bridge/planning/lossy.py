"""What the way back cannot restore bit for bit, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from bridge.planning.policy import is_float

if TYPE_CHECKING:
    from bridge.planning.plan import Plan

USED_UP = "used up by its layer: saved as 0"
"""Why a key is lossy that a layout drops; a plan that 0.1.0 wrote tells by this which keys those are."""
_MERGED = "merged with an adapter: saved as it is merged"
_LEAVE = "so quantization_config has to leave config.json"


class Lossy(NamedTuple):
    """A key that saving cannot restore bit for bit, and why."""

    key: str
    reason: str


class Quantization(NamedTuple):
    """How a tensor is stored that is computed from codes: `("fp8", "in blocks of 128 x 128")`."""

    format: str
    how: str

    def __str__(self) -> str:
        return f"{self.format} {self.how}".rstrip()


def lossy_of(plan: Plan) -> tuple[Lossy, ...]:
    """Every such key of a plan."""
    found: dict[str, str] = {}
    for key in plan.keys if plan.quantized else ():
        if key in plan.quantized:
            found[key] = f"{plan.quantized[key]}: saved as {plan.specs[key].dtype.name}, {_LEAVE}"
    for key in plan.keys if plan.merged else ():
        if key in plan.merged:
            found[key] = "; ".join([*([found[key]] if key in found else []), _MERGED])
    before_steps = dict(found)
    narrowed = {cast.leaf: cast for cast in plan.casts}
    for block in plan.blocks:
        if not (block.changes_values or narrowed):
            continue
        for row, leaf in enumerate(block.leaves):
            reasons: list[str] = []
            if len(block.terms) > 1:
                reasons.append("a sum: saved as the sum and zeros")
            if block.scale != 1 or (block.add != 0 and is_float(plan.leaves[leaf].dtype)):
                reasons.append("scale and add round")
            if leaf in narrowed:
                cast = narrowed[leaf]
                reasons.append(f"narrowed from {cast.stored.name} to {cast.dtype.name}")
            for key in (term.keys[row] for term in block.terms) if reasons else ():
                before = [before_steps[key]] if key in before_steps else []
                found[key] = "; ".join(before + reasons)
    consumed = plan.consumed
    return tuple(Lossy(key, reason) for key, reason in found.items()) + tuple(
        Lossy(key, USED_UP if key in consumed else f"dropped by '{rule}'") for key, rule in plan.dropped.items()
    )
