"""A plan read backwards: one key's tensor out of the leaves that hold its elements."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np

from bridge.mapping.block import Block
from bridge.mapping.indexmap import IndexMap, Strided, strided
from bridge.mapping.template import ArraySpec
from bridge.stream.convert import restore


class Piece(NamedTuple):
    """Elements of a key that a leaf holds; `zero` where a sum left them to another key."""

    leaf: str
    index_map: IndexMap
    scale: float | int
    add: float | int
    zero: bool


def pieces(blocks: Iterable[Block]) -> dict[str, list[Piece]]:
    """For every key that a plan reads, where its elements are. A copy is where they come from if nothing else is."""
    found: dict[str, list[Piece]] = {}
    copies: dict[str, list[Piece]] = {}
    for block in blocks:
        into = copies if block.copy else found
        for place in range(len(block.starts)):
            for term, (key, index_map) in enumerate(block.maps(place)):
                into.setdefault(key, []).append(Piece(block.leaf, index_map, block.scale, block.add, term > 0))
    return {key: _enough(held) for key, held in copies.items()} | found


def _enough(held: Sequence[Piece]) -> list[Piece]:
    """As many pieces, of copies that hold the same elements, as it takes to have all of them: the first count."""
    wanted, count = prod(held[0].index_map.key_shape), 0
    for number, piece in enumerate(held):
        count += piece.index_map.count
        if count >= wanted:
            return list(held[: number + 1])
    return list(held)


def exact_keys(blocks: Iterable[Block], specs: Mapping[str, ArraySpec], lossy: Container[str]) -> set[str]:
    """The keys that the leaves give back bit for bit: every element is in one, and none is in `lossy`."""
    found: set[str] = set()
    for key, held in pieces(blocks).items():
        count = sum(piece.index_map.count for piece in held if not piece.zero)
        if key not in lossy and count >= prod(specs[key].shape):
            found.add(key)
    return found


def gather(held: Iterable[Piece], leaves: Mapping[str, np.ndarray], dtype: np.dtype) -> np.ndarray:
    """One key's tensor in `dtype`: a view of the leaf where it is one, else an array of its own.

    **Raises:** `CheckpointError` where a value does not fit into `dtype`.
    """
    held = list(held)
    shape = held[0].index_map.key_shape
    if len(held) == 1 and (view := _view(held[0], leaves[held[0].leaf], dtype)) is not None:
        return view
    out = np.zeros(shape, dtype)
    flat = out.reshape(-1)
    for piece in held:
        if piece.zero:
            continue
        extents, key, leaf = strided(piece.index_map)
        if 0 in extents:
            continue
        values = _strided(leaves[piece.leaf].reshape(-1), leaf, extents)
        restore(values, piece.scale, piece.add, _strided(flat, key, extents))
    return out


def _view(piece: Piece, leaf: np.ndarray, dtype: np.dtype) -> np.ndarray | None:
    """The tensor as it lies in the leaf, where it lies there as one run and unchanged."""
    if piece.zero or piece.scale != 1 or piece.add != 0 or leaf.dtype != dtype or not piece.index_map.whole_key:
        return None
    extents, key, place = strided(piece.index_map)
    count = piece.index_map.count
    if len(extents) > 1 or (extents and (key.strides != (1,) or place.strides != (1,))) or not leaf.flags.c_contiguous:
        return None
    return leaf.reshape(-1)[place.offset : place.offset + count].reshape(piece.index_map.key_shape)


def _strided(flat: np.ndarray, view: Strided, extents: tuple[int, ...]) -> np.ndarray:
    itemsize = flat.dtype.itemsize
    steps = tuple(n * itemsize for n in view.strides)
    # Over bytes: numpy's own as_strided takes some dtypes of 8 bits for unknown ones.
    return np.ndarray(extents, flat.dtype, flat.view(np.uint8), view.offset * itemsize, steps)


class Host(Mapping[str, np.ndarray]):
    """Leaves as numpy arrays: on the CPU the same memory, from elsewhere one leaf at a time."""

    def __init__(self, leaves: Mapping[str, Any]) -> None:
        self.leaves = leaves
        self.held: tuple[str, np.ndarray] | None = None

    def __getitem__(self, name: str) -> np.ndarray:
        if self.held is None or self.held[0] != name:
            self.held = None
            self.held = name, np.ascontiguousarray(np.asarray(self.leaves[name])).reshape(self.leaves[name].shape)
        return self.held[1]

    def __iter__(self) -> Iterator[str]:
        return iter(self.leaves)

    def __len__(self) -> int:
        return len(self.leaves)
