"""Leaves that lie in a file just as they are to be: the file itself is their memory.

For the converted form on a local disk only. It is written in place of the old one by renaming, so a mapped file never
changes; and a network file system would fetch it page by page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bridge.format.table import Table
from bridge.mapping.block import Block
from bridge.mapping.template import Spec
from bridge.source.bytes import LocalFile
from bridge.stream.run import Files

_ALIGNED = 64  # where JAX takes memory over without a copy


def mapped(blocks: Sequence[Block], specs: Table, files: Files, leaves: Mapping[str, Spec]) -> dict[str, np.ndarray]:
    """The leaves that can be mapped, as read-only arrays over the files.

    **Arguments:** as for `bridge.stream.fill.fill`, with the leaves' specs instead of their memory.
    """
    memory: dict[str, np.ndarray] = {}
    found: dict[str, np.ndarray] = {}
    for block in blocks:
        key, leaf = block.terms[0].keys[0], leaves[block.leaf]
        spec = specs[key]
        whole = len(block.starts) == 1 and (spec.dtype, spec.shape) == (leaf.dtype, leaf.shape)
        # One key of the leaf's own shape, by a map without axes of its own: the elements lie as the leaf has them.
        if not whole or block.valued or spec.offset % _ALIGNED or not spec.nbytes or not _straight(block):
            continue
        if spec.file not in memory:
            source = files.byte_source(spec.file)
            if not isinstance(source, LocalFile):
                continue
            memory[spec.file] = np.frombuffer(source.map(), np.uint8)
        part = memory[spec.file][spec.offset : spec.offset + spec.nbytes]
        found[block.leaf] = part.view(spec.dtype).reshape(spec.shape)
    return found


def _straight(block: Block) -> bool:
    """Whether every axis of the key is the same axis of the leaf, forwards."""
    atoms = block.terms[0].index_map.atoms
    return all((a.key_axis, a.key_step) == (a.leaf_axis, 1) and a.leaf_step == 1 for a in atoms)
