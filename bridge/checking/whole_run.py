"""What the distances of a run say: what agrees, and what departs first."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np

from bridge.checking.counterparts import Address
from bridge.checking.kept import tensors
from bridge.checking.whole_events import IN, OUT, AlignedCalls, Event

_FLOORS = {8: 1e-12, 4: 1e-5, 2: 0.03}
_GROWTH = 6.0
"""How many times as far as whatever agreed before it something may be off."""


class Judged(NamedTuple):
    """An event, how far it may be off, and whether it is not further; `None`: it could not be compared."""

    event: Event
    limit: float
    agrees: bool | None


class Judgement(NamedTuple):
    """All events, and the first that departs in earnest. `inside`: it is an output, or what comes before an input."""

    events: Sequence[Judged]
    first: Judged | None

    def addresses(self, side: str) -> frozenset[Address]:
        """The layers whose inputs or outputs agree, in each call that was compared."""
        found: dict[Address, bool] = {}
        for one in self.events:
            if one.event.side == side and one.agrees is not None:
                found[one.event.at] = found.get(one.event.at, True) and one.agrees
        return frozenset(at for at, agrees in found.items() if agrees)

    @property
    def order(self) -> tuple[Address, ...]:
        """Layers in the order in which they ended."""
        return tuple(dict.fromkeys(one.event.at for one in self.events if one.event.side == OUT))

    @property
    def compared(self) -> bool:
        """Whether any output was."""
        return any(one.agrees is not None for one in self.events if one.event.side == OUT)

    @property
    def gave(self) -> bool:
        """Whether what the model itself gives was."""
        return any(one.agrees is not None for one in self.events if one.event.side == OUT and not one.event.at[0])


def judge(beside: AlignedCalls, events: Sequence[Event]) -> Judgement:
    """Say of each event whether it agrees. What is right drifts apart as it goes on, and limits with it."""
    judged: list[Judged] = []
    largest = 0.0
    for event in events:
        limit = max(_floor(event.dtype), _GROWTH * largest)
        agrees = None if event.error is None else bool(event.error <= limit)
        if agrees and event.error is not None:
            largest = max(largest, event.error)
        judged.append(Judged(event, limit, agrees))
    first = next(
        (one for place, one in enumerate(judged) if one.agrees is False and _counts(beside, judged, place)), None
    )
    return Judgement(judged, first)


def _floor(dtype: np.dtype) -> float:
    """How far apart right results may be from the start."""
    return 0.004 if dtype == np.float16 else _FLOORS.get(dtype.itemsize, 1e-5)


def _counts(beside: AlignedCalls, judged: Sequence[Judged], place: int) -> bool:
    """Whether a departure is one: modules end at different places, and what comes after them may agree again.

    An input always counts. An output does unless one agrees that takes it, or nothing that follows departs.
    """
    one = judged[place]
    name = one.event.at[0]
    if one.event.side == IN or name == "":
        return True
    consumers = _consumers(beside, one.event.at)
    if any(other.agrees for other in judged if other.event.side == IN and other.event.at in consumers):
        return False
    inside = f"{name}."
    later = [
        o
        for o in judged[place + 1 :]
        if not o.event.at[0].startswith(inside) and (o.event.side == IN or o.event.at[0] == "")
    ]
    return any(other.agrees is False for other in later) or not any(other.agrees for other in later)


def _consumers(beside: AlignedCalls, at: Address) -> set[Address]:
    """The modules whose counterparts take the very tensor that this one's gives, before anything else."""
    one = beside.known.get(at)
    if one is None or one.module is None:
        return set()
    given = {kept.number for call in beside.recording.calls_of(one.module)[:1] for kept in tensors(call.output)}
    found: set[Address] = set()
    for other in beside.known.values():
        if other.module is not None and other.module != one.module:
            for call in beside.recording.calls_of(other.module)[:1]:
                if any(kept.number in given for kept in islice(tensors((call.args, dict(call.kwargs))), 1)):
                    found.add((other.name, other.index))
    return found
