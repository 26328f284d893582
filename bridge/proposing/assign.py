"""One assignment over all atoms: what names say, and where their neighbours go, weighed against each other."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import cast

import numpy as np

from bridge.mapping.arrays import Numbers
from bridge.proposing.atom import Atom
from bridge.proposing.score import NEVER, Floats, Scores

_ROUNDS = 5
_VOTE = 4.0


class Assignment:
    """Which key is which leaf, `-1` for none; `scores` are what decided: names and neighbours."""

    def __init__(self, scores: Scores) -> None:
        self.names = scores
        self.above = _Above(scores.keys), _Above(scores.leaves)
        self.scores = scores.names.copy()
        self.leaf_of = assigned(self.scores)
        for _ in range(_ROUNDS):
            before = self.leaf_of
            self.scores = scores.names + self.votes()
            self.leaf_of = assigned(self.scores)
            if (before == self.leaf_of).all():
                break

    @cached_property
    def key_of(self) -> list[int]:
        """For each leaf its key, `-1` for none."""
        found = [-1] * len(self.names.leaves)
        for i, j in enumerate(self.leaf_of.tolist()):
            if j >= 0:
                found[j] = i
        return found

    def votes(self) -> Floats:
        """What the neighbours of each pair say, without its own vote and those of its rivals: else a wrong match would
        confirm itself.
        """
        keys, leaves = self.above
        leaf_of: list[int] = self.leaf_of.tolist()
        key_of = [-1] * len(self.names.leaves)
        together: dict[tuple[int, int], int] = {}
        for i, j in enumerate(leaf_of):
            if j >= 0:
                key_of[j] = i
                for p in keys.of[i]:
                    for q in leaves.of[j]:
                        together[p, q] = together.get((p, q), 0) + 1
        in_key = keys.counts([j >= 0 for j in leaf_of])
        in_leaf = leaves.counts([i >= 0 for i in key_of])
        found = np.zeros(self.scores.shape)
        for i, j in self.names.ways:
            own, rival = leaf_of[i], key_of[j]
            total = weights = 0.0
            for depth, p in enumerate(keys.of[i], 1):
                best = -1.0
                for q in leaves.of[j]:
                    votes = together.get((p, q), 0)
                    if own >= 0 and q in leaves.sets[own]:
                        votes -= 1
                    if rival >= 0 and rival != i and p in keys.sets[rival]:
                        votes -= 1
                    there = in_key[p] - (own >= 0) - (rival >= 0 and rival != i and p in keys.sets[rival])
                    there += in_leaf[q] - (rival >= 0) - (own >= 0 and own != j and q in leaves.sets[own])
                    if there > 0:
                        best = max(best, 2.0 * max(votes, 0) / there)
                if best >= 0:
                    total += best * 2.0**depth
                    weights += 2.0**depth
            if weights:
                found[i, j] = _VOTE * total / weights
        return found


class _Above:
    """The names above each atom: `of[n]` are their numbers, the outermost first, and `sets[n]` the same as a set."""

    def __init__(self, atoms: Sequence[Atom]) -> None:
        self.numbers: dict[tuple[str, ...], int] = {}
        self.of = [
            [self.numbers.setdefault(atom.segments[:n], len(self.numbers)) for n in range(1, len(atom.segments))]
            for atom in atoms
        ]
        self.sets = [frozenset(each) for each in self.of]

    def counts(self, chosen: Sequence[bool]) -> list[int]:
        """How many of the chosen atoms are below each."""
        found = [0] * len(self.numbers)
        for each, yes in zip(self.of, chosen, strict=True):
            for n in each if yes else ():
                found[n] += 1
        return found


def assigned(scores: Floats) -> Numbers:
    """The column of each row, `-1` for none, so that the sum is the greatest; a pair below zero is none."""
    # A tenth of a second to import, and without types.
    from scipy.optimize import linear_sum_assignment  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

    rows, columns = scores.shape
    found = np.full(rows, -1, np.intp)
    if not rows or not columns:
        return found
    padded = np.hstack([np.where(scores > 0, scores, NEVER), np.zeros((rows, rows))])
    picked, chosen = cast("tuple[Numbers, Numbers]", linear_sum_assignment(padded, maximize=True))
    inside = chosen < columns
    found[picked[inside]] = chosen[inside]
    return found
