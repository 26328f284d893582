"""Leaves that are made a part at a time, in memory of a bounded size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import prod
from typing import NamedTuple

from bridge.mapping.block import Block, MemoryMap
from bridge.mapping.indexmap import Shape
from bridge.mapping.shard import Box, BoxGrid, parts
from bridge.mapping.template import Spec
from bridge.stream.buffers import part_nbytes

_ALIGNED = 64


class LeafBox(NamedTuple):
    """A box of a leaf, and the box that it was cut from."""

    leaf: str
    spec: Spec
    box: Box
    within: Box

    @property
    def name(self) -> str:
        """A name for its memory."""
        return f"{self.leaf}@{','.join(f'{r.start}:{r.stop}' for r in self.box)}"

    @property
    def shape(self) -> Shape:
        """Its shape."""
        return tuple(map(len, self.box))

    @property
    def nbytes(self) -> int:
        """What it takes, with the alignment of the next one."""
        return -(-prod(self.shape) * self.spec.dtype.itemsize // _ALIGNED) * _ALIGNED


class Batches:
    """Parts of leaves, and the blocks that fill them."""

    def __init__(self, blocks: Iterable[Block], leaves: Mapping[str, Spec]) -> None:
        self.leaves = leaves
        self.blocks: dict[str, list[Block]] = {name: [] for name in leaves}
        for block in blocks:
            for leaf in dict.fromkeys(block.leaves):
                if leaf in self.blocks:
                    self.blocks[leaf].append(block)

    def parts(self, leaf: str, box: Box, limit: int) -> Iterator[LeafBox]:
        """A box of a leaf in parts of at most `limit` bytes; all of it where it has to be made whole."""
        spec, blocks = self.leaves[leaf], self.blocks[leaf]
        most = max(part_nbytes(blocks, limit) // spec.dtype.itemsize, 1)
        if any(block.needs_whole for block in blocks):
            most = prod(spec.shape)
        for part in parts(box, most):
            yield LeafBox(leaf, spec, part, box)

    def of(self, batch: Sequence[LeafBox]) -> list[Block]:
        """The blocks that fill some parts, over memory of their names."""
        memory = MemoryMap()
        blocks: dict[int, Block] = {}
        for part in batch:
            whole = part.shape == part.spec.shape
            grid = None if whole else BoxGrid(tuple(r.start for r in part.box), (1,) * len(part.box), part.shape)
            shape = part.shape if grid is None else grid.shape
            memory.add(part.leaf, part.name, Spec(part.spec.dtype, shape), grid)
            blocks |= {id(block): block for block in self.blocks[part.leaf]}
        return memory.over(blocks.values())
