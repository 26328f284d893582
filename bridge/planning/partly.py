"""What keys leave empty of a leaf that may be missing: the layers to come of a stack, or the padding of an axis.

A stack is filled from its first layer on. A hole among its layers is a problem, whatever may be missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from bridge._text import template
from bridge.mapping.block import Block
from bridge.mapping.cover import Boxes, leaf_steps

Box = tuple[range, ...]

_MANY = 1000  # holes that are looked at one by one


class FilledBoxes(NamedTuple):
    """The boxes of one leaf that one block fills, and the keys that fill them."""

    boxes: Boxes
    keys: Sequence[str]


def held_parts(numbers: Sequence[int], blocks: Iterable[Block], count: int) -> dict[int, list[FilledBoxes]]:
    """What blocks fill of some leaves, by the numbers of these; `count` is how many leaves there are."""
    held: dict[int, list[FilledBoxes]] = {number: [] for number in numbers}
    wanted = np.zeros(count, bool)
    wanted[list(numbers)] = True
    for block in blocks:
        rows = np.flatnonzero(wanted[block.leaves.numbers])
        if not len(rows):
            continue
        rows = rows[np.argsort(block.leaves.numbers[rows], kind="stable")]
        steps, keys = leaf_steps(block.terms[0].index_map), block.terms[0].keys
        found, edges = np.unique(block.leaves.numbers[rows], return_index=True)
        for number, part in zip(found.tolist(), np.split(rows, edges[1:]), strict=True):
            held[number].append(FilledBoxes(Boxes(steps, block.starts[part]), keys.at(part)))
    return held


def is_padding(hole: Box, parts: Sequence[FilledBoxes]) -> bool:
    """Whether a key has other elements at the places of a hole: these are no layers to come."""
    for part in parts:
        running = [axis for axis, steps in enumerate(part.boxes.steps) if steps]
        if part.boxes.touching(hole, running).any():
            return True
    return False


def may_stay_empty(parts: Sequence[FilledBoxes], holes: Sequence[Box]) -> list[bool]:
    """For each hole whether it may stay empty: no layer behind it is filled."""
    stacked = [stack_axes(part) for part in parts]
    found = [not _is_among(hole, parts, stacked) for hole in holes[:_MANY]]
    return found + [False] * (len(holes) - len(found))


def stack_axes(part: FilledBoxes) -> frozenset[int]:
    """The axes along which the keys of one name stand one by one."""
    single = [axis for axis, steps in enumerate(part.boxes.steps) if not steps]
    if not single:
        return frozenset()
    starts = part.boxes.starts
    groups: dict[str, list[int]] = {}
    for row in range(0, len(starts), max(1, len(starts) // _MANY)):
        groups.setdefault(template(part.keys[row])[0], []).append(row)
    found: set[int] = set()
    for rows in groups.values():
        if len(rows) > 1:
            found |= {axis for axis in single if (starts[rows, axis] != starts[rows[0], axis]).any()}
        else:  # one key tells by the numbers in its name, as far as these are its place
            numbers = template(part.keys[rows[0]])[1]
            found |= {axis for axis in single if starts[rows[0], axis] in numbers}
    return frozenset(found)


def _is_among(hole: Box, parts: Sequence[FilledBoxes], stacked: Sequence[frozenset[int]]) -> bool:
    """Whether a layer behind a hole is filled, in the same elements of it."""
    for part, axes in zip(parts, stacked, strict=True):
        if axes:
            behind = np.ones(len(part.boxes.starts), bool)
            for axis in axes:
                behind &= part.boxes.starts[:, axis] >= hole[axis].start
            if behind.any() and (behind & part.boxes.touching(hole, axes)).any():
                return True
    return False
