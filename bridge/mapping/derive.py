"""Where there is no model: every name that a rule spells is a leaf, and its keys make its shape."""

from __future__ import annotations

import numpy as np

from bridge.mapping.bound import BoundRule
from bridge.mapping.desugar import Desugar, leaf_name
from bridge.mapping.equation import Arrival, ConcreteRule, Landed
from bridge.mapping.landing import Standing
from bridge.mapping.pattern import formatted
from bridge.mapping.unstack import by_shape


def derive(desugar: Desugar, bound: BoundRule, *, explicit: bool) -> None:
    """Make equations of a bound rule whose keys land at the very names that they were sent to."""
    arrival = Arrival(bound, None, Standing(), (), True)
    desugar.concrete.append(ConcreteRule(bound.number, desugar.texts_of(arrival)))
    for side, branch in bound.rows:
        rows, name = by_shape(bound, side, branch, bound.joined(side, branch), desugar.table), leaf_name(bound, branch)
        names = formatted(name, bound.sizes, rows.columns, len(rows.ids))
        numbers = np.array([desugar.leaves.number(each) for each in names], np.intp)
        kept = [rows.columns[index.name] for index in name.indices() if index.name in rows.columns]
        landed = Landed(side, branch, rows, kept, numbers)
        stacks = [rows.columns[dropped] for dropped in bound.dropped(side)]
        if explicit:
            desugar.explicit(arrival, landed, numbers, stacks)
        else:
            desugar.plain(bound, landed, numbers, stacks, tie=bound.rule.tie)
        desugar.arrived[rows.ids] = True
