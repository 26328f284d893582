"""What two layers have in common that can be exchanged, and which modules are around one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bridge.checking.counterparts import Counterpart


def around(name: str) -> list[str]:
    """The names of the modules around one, innermost first."""
    parts = name.split(".") if name else []
    return [".".join(parts[:n]) for n in range(len(parts) - 1, -1, -1)]


def in_common(one: Counterpart, other: Counterpart) -> tuple[Counterpart, Counterpart]:
    """Two layers with the leaves that both have: one may have a bias, and the other none."""
    names = one.pieces.keys() & other.pieces.keys()
    mine, theirs = ({local: held for local, held in each.pieces.items() if local in names} for each in (one, other))
    return replace(one, pieces=mine), replace(other, pieces=theirs)


def form(one: Counterpart) -> Any:
    """What two layers have in common that can be exchanged."""
    return tuple(
        (local, piece.index_map.leaf_shape, piece.index_map.key_shape)
        for local, held in one.pieces.items()
        for piece in held
    )
