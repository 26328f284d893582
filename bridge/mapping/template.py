"""`Template`: what a model is to the mapping. Names and specs of its leaves, and the layouts of its layers. Pure data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import NamedTuple

import numpy as np

from bridge.mapping.indexmap import Shape
from bridge.rules.check import branch_count, branch_picks, picked_labels
from bridge.rules.rule import Rule
from bridge.rules.syntax import Name


@dataclass(frozen=True, slots=True)
class Spec:
    """dtype (a numpy dtype) and shape of an array."""

    dtype: np.dtype
    shape: Shape

    @property
    def nbytes(self) -> int:
        """How many bytes the array has in memory."""
        return prod(self.shape) * self.dtype.itemsize

    def __str__(self) -> str:
        return f"{self.dtype.name}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True, slots=True)
class Placed:
    """A layer's layout where the layer stands in the model.

    `rules` speak of the layer's own names, one layer at a time: the layer stands below `prefix`, and `depth` leading axes
    of its leaves are stacked. Keys in `optional` may be absent (and then nothing replaces them).
    """

    prefix: str
    rules: tuple[Rule, ...]
    depth: int = 0
    optional: frozenset[str] = frozenset()

    def full(self, name: str) -> str:
        """A name of the layer as a name of the model."""
        return f"{self.prefix}.{name}" if self.prefix and name else self.prefix or name


class Port(NamedTuple):
    """One side and branch of one rule of one placed layout: where a name that PyTorch uses comes in."""

    placed: int
    rule: int
    side: int
    branch: int


@dataclass(frozen=True, slots=True)
class Template:
    """A model's leaves by name, its layouts, and other spellings of its names.

    `fills` are leaves that no key ever fills, by the value that every element takes (a layer's counters and flags).
    `hints` are remarks to print where a leaf is missing.
    """

    leaves: Mapping[str, Spec]
    placed: tuple[Placed, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict[str, str])
    fills: Mapping[str, int] = field(default_factory=dict[str, int])
    hints: Mapping[str, str] = field(default_factory=dict[str, str])
    kind: str = "the model"

    def ports(self) -> dict[str, list[Port]]:
        """The names that the layouts give to PyTorch's parameters."""
        ports: dict[str, list[Port]] = {}
        for n, placed in enumerate(self.placed):
            for r, rule in enumerate(placed.rules):
                for side, key in enumerate(rule.keys):
                    for branch, name in enumerate(branch_names(rule, side, key.name)):
                        entry = ports.setdefault(placed.full(name), [])
                        if Port(n, r, side, branch) not in entry:
                            entry.append(Port(n, r, side, branch))
        return ports


def branch_names(rule: Rule, side: int, name: Name) -> list[str]:
    """A name without indices or wildcards, once for each branch; side -1 is the leaf's."""
    names: list[str] = []
    for branch in range(branch_count(rule.pairing)):
        labels = iter(picked_labels(rule.pairing, side, branch_picks(rule.pairing, branch)))
        names.append(".".join("".join(p if isinstance(p, str) else next(labels) for p in s) for s in name.segments))
    return names
