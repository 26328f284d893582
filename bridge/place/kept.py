"""What leaves keep where no key fills them: the values of a template, or of a function, box by box into memory."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import jax
import numpy as np

from bridge._errors import CheckpointError, PlanError
from bridge._text import quote
from bridge.mapping.shard import Box, BoxGrid
from bridge.mapping.template import Spec
from bridge.planning.policy import refusal
from bridge.stream.convert import assign


class KeptPart:
    """The boxes of one leaf that no key fills, and the array that has their values."""

    def __init__(self, name: str, spec: Spec, holes: Sequence[Box], value: Any) -> None:
        """**Raises:** `PlanError` where values of its dtype are not cast to the leaf's."""
        self.name, self.spec, self.holes, self.value = name, spec, holes, value
        reason = refusal(np.dtype(value.dtype), spec.dtype)
        if reason is not None:
            raise PlanError(
                f"leaf {quote(name)}",
                f"is filled only in part, and the template cannot fill the rest: {reason[0]}",
                f"Give it the dtype {spec.dtype.name} in the template",
            )

    def write(self, box: Box, memory: np.ndarray) -> None:
        """Write what lies in a box of the leaf to memory of the box's shape.

        **Raises:** `PlanError` where another process has it, or where a value does not fit into the leaf's dtype.
        """
        for hole in self.holes:
            common = _common(hole, box)
            if common is None:
                continue
            written = 0
            for held, values in self.sources():
                part = _common(common, held)
                if part is not None:
                    self.assign(memory[_within(part, box)], values[_within(part, held)])
                    written += prod(map(len, part))
            if written < prod(map(len, common)):
                raise PlanError(
                    f"leaf {quote(self.name)}",
                    f"is filled only in part, and the template's own values are spread over processes as "
                    f"{self.value.sharding}",
                    "Give the template the sharding that the load has",
                )

    def write_grid(self, grid: BoxGrid | None, memory: np.ndarray) -> None:
        """Write what lies in boxes side by side to memory that holds them so; `None` is all of the leaf."""
        if grid is None:
            self.write(tuple(map(range, self.spec.shape)), memory)
            return
        for index in np.ndindex(*grid.counts):
            at = zip(index, grid.start, grid.box, strict=True)
            self.write(tuple(range(s + k * n, s + (k + 1) * n) for k, s, n in at), memory[index])

    def assign(self, out: np.ndarray, values: np.ndarray) -> None:
        """Write values, cast as the leaf is."""
        try:
            assign(out, values)
        except CheckpointError as error:
            raise PlanError(
                f"leaf {quote(self.name)}",
                f"is filled only in part, and the template's value for the rest {error.problem}",
                "Give the leaf another dtype with dtype=",
            ) from error

    def sources(self) -> list[tuple[Box, np.ndarray]]:
        """The boxes of the array that this process has, each once."""
        if not isinstance(self.value, jax.Array):
            return [(tuple(map(range, self.spec.shape)), np.asarray(self.value))]
        found: dict[Box, np.ndarray] = {}
        for shard in self.value.addressable_shards:
            box = tuple(range(*part.indices(n)) for part, n in zip(shard.index, self.spec.shape, strict=True))
            if box not in found:
                found[box] = np.asarray(shard.data)
        return list(found.items())


def _common(one: Box, other: Box) -> Box | None:
    """What two boxes have in common; `None` where that is nothing."""
    found = tuple(range(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(one, other, strict=True))
    return found if all(found) else None


def _within(box: Box, around: Box) -> tuple[slice, ...]:
    """A box as a selection of memory that holds the one around it."""
    return tuple(slice(a.start - b.start, a.stop - b.start) for a, b in zip(box, around, strict=True))
