"""Keys that cannot be read: a plan may drop them, and one that uses them is not ok."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from bridge.format.table import Form, Table
from bridge.mapping.problem import Conflict
from bridge.source.quantized import over

if TYPE_CHECKING:
    from bridge.mapping.block import Block
    from bridge.planning.plan import Plan
    from bridge.source.checkpoint import Checkpoint

_ANY = Form(np.dtype(bool), (), 0)


def plannable(ckpt: Checkpoint) -> Checkpoint:
    """The checkpoint with a stand-in spec for each key whose dtype and shape are unknown."""
    specs = ckpt.specs
    if not specs.refused:
        return ckpt
    forms = [_ANY if form.dtype.kind == "V" and not form.dtype.itemsize else form for form in specs.forms]
    columns = specs.files, specs.ranks, specs.offsets, specs.parts, specs.refused
    return over(ckpt, Table(specs.names, specs.kinds, forms, *columns))


def without_refused(ckpt: Checkpoint, made: Plan) -> Plan:
    """The plan without the keys that cannot be read. The reason replaces any other problem of such a key."""
    refused, problems = ckpt.refused, made.problems
    if not refused:
        return made
    used = {*made.keys, *(problem.key for problem in problems.mismatched)}
    used |= {key for conflict in problems.conflicts for key in conflict.keys}
    problems.mismatched = [problem for problem in problems.mismatched if problem.key not in refused]
    problems.conflicts = [conflict for conflict in problems.conflicts if refused.keys().isdisjoint(conflict.keys)]
    problems.conflicts += [Conflict(key, text, (key,)) for key, text in refused.items() if key in used]
    return replace(made, blocks=tuple(_readable(made.blocks, refused)))


def _readable(blocks: Iterable[Block], refused: Mapping[str, str]) -> Iterator[Block]:
    for block in blocks:
        rows = zip(*(term.keys for term in block.terms), strict=True)
        kept = [row for row, keys in enumerate(rows) if refused.keys().isdisjoint(keys)]
        if kept:
            yield block if len(kept) == len(block) else block.at(np.array(kept, np.intp))
