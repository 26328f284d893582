"""Numbers at the ends of segments as ranks: conv_0 and conv_1 are conv1 and conv2, mlp.0 and mlp.2 are fc1 and fc2."""

from __future__ import annotations

import re
from collections.abc import Sequence

from bridge.mapping.pattern import MARK
from bridge.proposing.atom import Atom

DIGITS = re.compile(r"_?(\d+)$")


def ranks(atoms: Sequence[Atom]) -> dict[int, dict[int, tuple[int, int]]]:
    """For each name the places of numbers that are text, each as rank and count among names that differ only there."""
    groups: dict[tuple[object, ...], dict[int, list[tuple[int, int]]]] = {}
    for number, atom in enumerate(atoms):
        for n, segment in enumerate(atom.segments):
            found = DIGITS.search(segment)
            if found and MARK not in segment:
                stem = segment[: found.start()]
                key = (atom.segments[:n], stem, atom.segments[n + 1 :])
                groups.setdefault(key, {}).setdefault(int(found[1]), []).append((number, n))
    places: dict[int, dict[int, tuple[int, int]]] = {}
    for members in groups.values():
        if len(members) > 1:
            for rank, value in enumerate(sorted(members)):
                for number, n in members[value]:
                    places.setdefault(number, {})[n] = (rank, len(members))
    return places
