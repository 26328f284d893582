"""Why a pair may be wrong: what else would do nearly as well.

A pair is certain only where its names say what it is, and nothing else comes near: not another pair with which it could
change places, no unused key, no leaf without a key, and no two whole modules that could be exchanged.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bridge.proposing.assign import Assignment
from bridge.proposing.atom import Atom
from bridge.proposing.concepts import Said, telling, telling_segments
from bridge.proposing.meanings import snake
from bridge.proposing.score import Floats

LITTLE = "the names have little in common"
_NEAR = 1.0
_APART = "the names do not tell these apart"
_NUMBERED = re.compile(r"(norm|layernorm|ln|layer_norm)_?\d")
_NORMS = 2  # in a block: before attention and before the MLP


class Doubt(NamedTuple):
    """Why, and the keys that fit as well, by number."""

    why: str
    others: tuple[int, ...] = ()


def doubts(made: Assignment) -> dict[int, Doubt]:
    """For the keys of doubtful pairs why they are."""
    found: dict[int, Doubt] = {}
    placed = {i: j for i, j in enumerate(made.leaf_of.tolist()) if j >= 0}
    leaf_of: list[int] = made.leaf_of.tolist()
    pairs = [(i, j) for i, j in enumerate(leaf_of) if j >= 0]
    for i, j in pairs:
        doubt = _of_pair(made, pairs, i, j)
        if doubt is not None:
            found[i] = doubt
    for i in [*found]:
        # What may stand in the place of another, the other may in its place.
        for other in found[i].others if found[i].why == _APART else ():
            if other in placed and other not in found and (i, placed[other]) in made.names.ways:
                found[other] = Doubt("it could change places with a weight that is a guess itself", (i,))
    keys_said: Sequence[Said] = made.names.said[0]
    leaves_said: Sequence[Said] = made.names.said[1]
    sides = (made.names.keys, keys_said), (made.names.leaves, leaves_said)
    several, crowded = ([_crowded(*side, more_than=most) for side in sides] for most in (1, _NORMS))
    for i, j in pairs:
        roles: set[str] = {keys_said[i].role, leaves_said[j].role}
        vague = len(roles) == 2 and "norm" in roles and (i in several[0] or j in several[1])
        if i not in found and vague:
            found[i] = Doubt("a block has several norms, and one of the names does not say which it is")
        if i not in found and (i in crowded[0] or j in crowded[1]) and _by_number(made, i, j):
            found[i] = Doubt("of more than two norms in a block only numbers tell which is which")
    for i, other in _modules(made, pairs):
        if i not in found:
            found[i] = Doubt("its module and another could change places", (other,))
    return found


def _by_number(made: Assignment, i: int, j: int) -> bool:
    """Whether one side calls a norm by a number, and the other by its place."""
    segments = [segment for atom in (made.names.keys[i], made.names.leaves[j]) for segment in atom.segments[-2:]]
    numbered = [_NUMBERED.fullmatch(snake(segment)) is not None for segment in segments]
    return any(numbered[:2]) != any(numbered[2:])


def _crowded(atoms: Sequence[Atom], said: Sequence[Said], more_than: int) -> set[int]:
    """Norms of blocks that have more than so many."""
    homes: dict[tuple[str, ...], set[str]] = {}
    for atom, each in zip(atoms, said, strict=True):
        if each.role.startswith("norm"):
            homes.setdefault(atom.segments[:-2], set()).add(atom.segments[-2:][0])
    return {
        n
        for n, (atom, each) in enumerate(zip(atoms, said, strict=True))
        if each.role.startswith("norm") and len(homes[atom.segments[:-2]]) > more_than
    }


def _of_pair(made: Assignment, pairs: list[tuple[int, int]], i: int, j: int) -> Doubt | None:
    names, scores = made.names.names, made.scores
    if _says_little(made, i, j):
        return Doubt(LITTLE, _others(made, i, j))
    near = [
        other
        for other, leaf in pairs
        if other != i
        and (i, leaf) in made.names.ways
        and (other, j) in made.names.ways
        and (_gained(scores, i, j, other, leaf) < _NEAR or _gained(made.names.literal, i, j, other, leaf) < 0)
    ]
    if near:
        return Doubt(_APART, tuple(near))
    unused = np.flatnonzero(made.leaf_of < 0)
    near = [n for n in unused.tolist() if (n, j) in made.names.ways and names[i, j] - names[n, j] < _NEAR]
    if near:
        return Doubt("an unused key fits as well", tuple(near))
    free = [n for n, key in enumerate(made.key_of) if key < 0 and (i, n) in made.names.ways]
    near = [n for n in free if names[i, j] - names[i, n] < _NEAR]
    if near:
        shown = ", ".join(made.names.leaves[n].shown for n in near[:3])
        return Doubt(f"the key fits another leaf as well: {shown}")
    return None


def _gained(scores: Floats, i: int, j: int, other: int, leaf: int) -> float:
    """How much better two pairs are than with their leaves exchanged."""
    return scores[i, j] + scores[other, leaf] - scores[i, leaf] - scores[other, j]


def _says_little(made: Assignment, i: int, j: int) -> bool:
    """Whether names share no role and hardly a word, or what a name ends with is a word that the other lacks."""
    scores, (keys, leaves) = made.names, made.names.said
    if telling_segments(scores.keys[i]) == telling_segments(scores.leaves[j]):
        return False
    if not keys[i].strange <= leaves[j].words.keys() or not leaves[j].strange <= keys[i].words.keys():
        return True
    attributes = {keys[i].attribute, leaves[j].attribute}
    if len(attributes) > 1 and "" not in attributes:
        return True
    roles = {keys[i].role, leaves[j].role}
    if "" not in roles and (len(roles) == 1 or roles == {"norm", "normf"}):
        # A norm that is called nothing but a norm is one of many: what stands around it has to say which.
        around = (keys[i].weights.keys() - {"norm", "normf"}, leaves[j].weights.keys() - {"norm", "normf"})
        return "norm" in roles and any(around) and not around[0] & around[1]
    if "" not in roles and "norm" not in roles:
        return True
    if "" in roles and keys[i].role != leaves[j].role and not telling(keys[i]) & telling(leaves[j]):
        return True  # a layer is a layer: `linear` alone is no more than that
    return max(scores.concepts[i, j], scores.words[i, j]) < 0.5


def _others(made: Assignment, i: int, j: int) -> tuple[int, ...]:
    column = made.names.names[:, j].copy()
    column[i] = -np.inf
    order = np.argsort(-column)[:3].tolist()
    return tuple(n for n in order if (n, j) in made.names.ways)


def _modules(made: Assignment, pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Keys below modules that could change places as a whole, by what names alone say."""
    names, leaves = made.names.names, made.names.leaves
    homes: dict[tuple[str, ...], dict[tuple[str, ...], tuple[int, int]]] = {}
    for i, j in pairs:
        segments = leaves[j].segments
        for n in range(1, len(segments)):
            homes.setdefault(segments[:n], {})[segments[n:]] = (i, j)
    beside: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    for home in homes:
        beside.setdefault(home[:-1], []).append(home)
    found: list[tuple[int, int]] = []
    for group in beside.values():
        for n, one in enumerate(group):
            for other in group[n + 1 :]:
                found += _exchanged(homes[one], homes[other], names)
    return found


def _exchanged(
    one: dict[tuple[str, ...], tuple[int, int]], other: dict[tuple[str, ...], tuple[int, int]], names: np.ndarray
) -> list[tuple[int, int]]:
    """The keys of two modules that could be exchanged, each with the key that would stand in its place."""
    if one.keys() != other.keys():
        return []
    lost = 0.0
    for tail, (i, j) in one.items():
        k, m = other[tail]
        lost += names[i, j] + names[k, m] - names[i, m] - names[k, j]
        if lost > 1e5:
            return []
    if lost >= _NEAR:
        return []
    return [pair for tail, (i, _) in one.items() for k, _ in [other[tail]] for pair in ((i, k), (k, i))]
