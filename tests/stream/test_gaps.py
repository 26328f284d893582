"""Columns of a matrix: what lies between them is read over where that is cheap, and never beyond the cap."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bridge.format.table import Columns, Form, Table
from bridge.mapping.pattern import NamePatterns
from bridge.mapping.shard import BoxGrid, shard
from bridge.mapping.template import Spec, Template
from bridge.planning.plan import PlanRequest, make_plan
from bridge.rules.rule import Rule
from bridge.stream.jobs import jobs

F4 = np.dtype("f4")


def read_nbytes(rule: str, key: tuple[int, ...], leaf: tuple[int, ...], box: tuple[range, ...], dtype=F4) -> int:
    """Bytes that are read for one box of the leaf, of which no job is longer than what it saves."""
    forms = [Form(F4, key, math.prod(key) * 4)]
    specs = Table.of(Columns({}, ["w"], np.zeros(1, np.intp), forms, np.zeros(1, np.int64)), file="f", data_start=0)
    request = PlanRequest((Rule(rule),), allow_missing=NamePatterns.of(()), allow_unexpected=NamePatterns.of(()))
    plan = make_plan(specs, Template({"w": Spec(dtype, leaf)}), request, source="test")
    assert plan.ok, str(plan)
    grid = BoxGrid(tuple(r.start for r in box), (1,) * len(box), tuple(map(len, box)))
    cut = [part for block in plan.blocks for part in shard(block, grid) or []]
    return sum(job.nbytes for job in jobs(cut, specs))


@pytest.mark.parametrize("dtype", [F4, np.dtype("f2")], ids=["as they are", "cast"])
@pytest.mark.parametrize(
    ("columns", "part", "share"),
    [
        (8192, 4096, 2),  # a gap of 16 KiB between runs of 16 KiB: read over, or read one by one
        (1024, 128, 8),  # an eighth of each row: eight times what is needed is the most
        (16384, 512, 1),  # a thirty-second: a request for every row
        (1 << 16, 1 << 15, 1),  # gaps of 128 KiB are always skipped
        (512, 4, 128),  # gaps within a page: no disk reads less
    ],
)
def test_columns(columns: int, part: int, share: int, dtype: np.dtype):
    needed = 64 * part * 4
    nbytes = read_nbytes("w -> w", (64, columns), (64, columns), (range(64), range(part)), dtype)
    assert needed <= nbytes <= share * needed
    # Rows of the leaf are columns of the tensor.
    turned = read_nbytes("w [a b] -> w [b a]", (64, columns), (columns, 64), (range(part), range(64)), dtype)
    assert needed <= turned <= share * needed


def test_rows_are_exact():
    assert read_nbytes("w -> w", (64, 1024), (64, 1024), (range(8, 16), range(1024))) == 8 * 1024 * 4
    assert read_nbytes("w [a b] -> w [b a]", (64, 1024), (1024, 64), (range(1024), range(8, 16))) == 8 * 1024 * 4
