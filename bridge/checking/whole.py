"""The run as a whole, beside the layers alone: only it shows a wrong name, which a layer alone agrees with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bridge.checking.counterparts import Address, Counterparts
from bridge.checking.recording import Recording
from bridge.planning.plan import Plan


@dataclass(frozen=True, slots=True)
class InRun:
    """Why a layer departs in the run, and the rule that makes it agree."""

    reason: str
    rule: str | None = None


@dataclass(frozen=True, slots=True)
class WholeRun:
    """What became of the run.

    - `text`: in words, after "the whole run". `compared`: whether it was.
    - `departed`: layers whose own inputs agree, and whose output does not.
    - `agrees`, `inputs_agree`: layers whose output agrees, and those whose input does.
    - `order`: layers in the order in which the model runs them.
    """

    text: str
    compared: bool = False
    departed: Mapping[Address, InRun] = field(default_factory=dict[Address, InRun])
    agrees: frozenset[Address] = frozenset()
    inputs_agree: frozenset[Address] = frozenset()
    order: tuple[Address, ...] = ()


def run_whole(recording: Recording, pairs: Counterparts, model: Any, plan: Plan, trace: Any) -> WholeRun:
    """Compare a traced run with the recording; without a trace the model is run on the recorded input, if it can be."""
    return WholeRun("was not compared: a wrong name does not show in a layer alone")
