"""Leaves that lie in a file just as they are to be: the file itself is their memory.

For the converted form on a local disk only. It is written in place of the old one by renaming, so a mapped file never
changes; and a network file system would fetch it page by page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bridge.format.table import Table
from bridge.mapping.block import Block
from bridge.mapping.indexmap import IndexMap
from bridge.mapping.template import Spec
from bridge.source.bytes import LocalFile
from bridge.stream.jobs import FileSource, located

_ALIGNED = 64  # where JAX takes memory over without a copy


def mapped(
    blocks: Sequence[Block], specs: Table, files: FileSource, leaves: Mapping[str, Spec]
) -> dict[str, np.ndarray]:
    """The leaves that can be mapped, as read-only arrays over the files.

    **Arguments:** as for `bridge.stream.fill.fill`, with the leaves' specs instead of their memory.
    """
    memory: dict[str, np.ndarray] = {}
    found: dict[str, np.ndarray] = {}
    numbers = located(specs)
    for block in blocks:
        if block.changes_values or block.tie or not _in_order(block.terms[0].index_map):
            continue
        keys = numbers(block.terms[0].keys)
        for row in np.flatnonzero(specs.offsets[keys] % _ALIGNED == 0).tolist():
            spec, leaf = specs.spec(int(keys[row])), leaves.get(block.leaves[row])
            if leaf is None or not specs.forms[int(specs.kinds[keys[row]])].is_plain:
                continue
            if (spec.dtype, spec.shape) != (leaf.dtype, leaf.shape) or not spec.nbytes:
                continue
            if spec.file not in memory:
                source = files.byte_source(spec.file)
                if not isinstance(source, LocalFile):
                    continue
                memory[spec.file] = np.frombuffer(source.map(), np.uint8)
            part = memory[spec.file][spec.offset : spec.offset + spec.nbytes]
            found[block.leaves[row]] = part.view(spec.dtype).reshape(spec.shape)
    return found


def _in_order(index_map: IndexMap) -> bool:
    """Whether a tensor is the leaf as it is: every axis of the one is the same axis of the other, forwards."""
    alike = index_map.key_shape == index_map.leaf_shape and index_map.whole_key
    return alike and all((a.key_axis, a.key_step, a.leaf_step) == (a.leaf_axis, 1, 1) for a in index_map.loops)
