"""`Template`: what a model is to the mapping: names and specs of its leaves, and the layouts of its layers. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import NamedTuple, TypeAlias

import numpy as np

from bridge._errors import PlanError
from bridge._text import quote
from bridge.mapping.arrays import ArraySpec as ArraySpec
from bridge.mapping.indexmap import MAX_COUNT, Shape
from bridge.rules.check import branch_count, branch_picks, picked_labels
from bridge.rules.rule import Rule


@dataclass(frozen=True, slots=True)
class Spec:
    """The dtype (of numpy) and the shape of an array.

    ```python
    spec = bridge.plan("model.safetensors", like).leaves["weight"]
    assert (spec.dtype, spec.shape, spec.nbytes) == (np.float32, (2, 3), 24)
    ```
    """

    dtype: np.dtype
    shape: Shape

    @property
    def nbytes(self) -> int:
        """The size of the array in memory, in bytes."""
        return prod(self.shape) * self.dtype.itemsize

    def __str__(self) -> str:
        return f"{self.dtype.name}[{', '.join(map(str, self.shape))}]"


class PlacedLayout(NamedTuple):
    """A layer's layout where the layer stands in the model.

    `rules` speak of the layer's own names, one layer at a time: the layer stands below `prefix`, `depth` leading axes
    of its leaves are a stack's. `tied_at` is where a copy of the layer stood that shares its leaves: keys there tie.
    `whole` says that further axes are a stack's, which the rules leave in front. `kind` is the layer's type.
    """

    prefix: str
    rules: tuple[Rule, ...]
    depth: int = 0
    tied_at: str | None = None
    whole: bool = False
    kind: str = ""

    def key(self, name: str) -> str:
        """What PyTorch calls a parameter of the layer, as a name of the model."""
        return _joined(self.prefix if self.tied_at is None else self.tied_at, name)

    def leaf(self, name: str) -> str:
        """A leaf of the layer as a leaf of the model."""
        return _joined(self.prefix, name)


PortNumbers: TypeAlias = tuple[int, int, int, int]
"""A placed layout, a rule of it, a side and a branch, by number: where a name that PyTorch uses comes in."""


class Template(NamedTuple):
    """A model's leaves by name, its layouts, and other spellings of its names.

    `aliases` lead from other names of a leaf to its own; those in `tied` are the names of copies that share it.
    `fills` are leaves that no key has to fill, by the value that every element takes (a layer's counters and flags).
    `hints` are remarks to print where a leaf is missing, or a key unexpected that was sent to this name.
    """

    leaves: Mapping[str, Spec]
    placed: tuple[PlacedLayout, ...] = ()
    aliases: Mapping[str, str] = {}
    tied: frozenset[str] = frozenset()
    fills: Mapping[str, int] = {}
    hints: Mapping[str, str] = {}
    kind: str = "the model"

    def check_shapes(self) -> None:
        """Every leaf has a shape that an array can have. **Raises:** `PlanError`."""
        first: dict[Shape, str] = {}
        for name, spec in self.leaves.items():
            first.setdefault(spec.shape, name)
        for shape, name in first.items():
            if prod(shape) > MAX_COUNT:
                raise PlanError(
                    f"leaf {quote(name)}",
                    f"of the model would be {list(shape)}, more than an array can have",
                    "Make it smaller",
                )

    def ports(self) -> dict[str, list[PortNumbers]]:
        """The names that the layouts give to PyTorch's parameters."""
        ports: dict[str, list[PortNumbers]] = {}
        for n, placed in enumerate(self.placed):
            for r, rule in enumerate(placed.rules):
                for side in range(len(rule.keys)):
                    for branch, name in enumerate(branch_names(rule, side)):
                        entry = ports.setdefault(placed.key(name), [])
                        if (n, r, side, branch) not in entry:
                            entry.append((n, r, side, branch))
        return ports

    def keys(self) -> dict[str, str]:
        """For each leaf that a layout fills, what PyTorch calls the parameter (the first name of several)."""
        keys: dict[str, str] = {}
        for placed in self.placed:
            for rule in placed.rules if placed.tied_at is None else ():
                if rule.leaf is not None:
                    for branch, name in enumerate(branch_names(rule, -1)):
                        key = branch_names(rule, 0)[branch]
                        keys.setdefault(placed.leaf(name), placed.key(key))
        return keys


def _joined(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix and name else prefix or name


@lru_cache(maxsize=1024)
def branch_names(rule: Rule, side: int) -> tuple[str, ...]:
    """The name of a side without indices or wildcards, once for each branch; side -1 is the leaf's."""
    names: list[str] = []
    found = rule.keys[side] if side >= 0 else rule.leaf
    assert found is not None
    for branch in range(branch_count(rule.pairing)):
        labels = iter(picked_labels(rule.pairing, side, branch_picks(rule.pairing, branch)))
        segments = found.name.segments
        names.append(".".join("".join(p if isinstance(p, str) else next(labels) for p in s) for s in segments))
    return tuple(names)
