"""A leaf's name that can be read in several ways, each of them complete: a problem that shows them as rules."""

from __future__ import annotations

from collections.abc import Sequence

from bridge.mapping.arrays import Arrays
from bridge.mapping.bound import BoundRule
from bridge.mapping.desugar import Desugar
from bridge.mapping.landing import Landing, ModelNames, family_of
from bridge.mapping.problem import Conflict
from bridge.mapping.spelling import reading


def report(
    desugar: Desugar, bound: BoundRule, landings: Sequence[Landing], names: ModelNames, *, explicit: bool
) -> None:
    """Report a bound rule that lands in several ways; its keys count as arrived, and its leaves as unclear."""
    rules = "\n".join(f'"{reading(bound, landing)}"' for landing in landings)
    text = f"can be read in {len(landings)} ways, and each fits. Say which by a rule:\n{rules}"
    keys = tuple(Arrays(desugar.table, bound.ids))
    desugar.problems.conflicts.append(Conflict(str(bound.keys[0]), text, keys))
    desugar.arrived[bound.ids] = True
    index = names.index(explicit=explicit)
    branches = {branch for _, branch in bound.rows}
    for family in (family_of(bound, landing, branch, index) for landing in landings for branch in branches):
        numbers: list[int] = [] if family is None else family.ids.tolist()
        desugar.unclear.update(map(index.names.__getitem__, numbers))
