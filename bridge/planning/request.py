"""What is asked of a plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from bridge.mapping.pattern import NamePatterns
from bridge.planning.policy import DtypePolicy
from bridge.rules.rule import Rule


class PlanRequest(NamedTuple):
    """What was asked for, besides the checkpoint and the model: enough to ask again."""

    rules: tuple[Rule, ...] = ()
    dtype: DtypePolicy = DtypePolicy()
    allow_missing: NamePatterns = NamePatterns.of(())
    allow_unexpected: NamePatterns = NamePatterns.of(())
    fillers: Mapping[str, Any] = {}
    """Functions by leaf pattern that make leaves which may be missing. Kept out of JSON, as is the next."""
    sharding: Any = None
    quantized: str | Mapping[str, Any] = "dequantize"
    """What becomes of quantised tensors. It decides which keys there are, and what they mean."""
    adapters: tuple[tuple[str, float], ...] = ()
    """What is merged into the checkpoint: what each is called, and its weight."""

    def asks_like(self, other: PlanRequest) -> bool:
        """Whether two requests differ in nothing but rules, and where the leaves are to go."""
        return (
            self.dtype == other.dtype
            and self.allow_missing.texts == other.allow_missing.texts
            and self.allow_unexpected.texts == other.allow_unexpected.texts
            and self.fillers == other.fillers
            and self.quantized == other.quantized
            and self.adapters == other.adapters
        )
