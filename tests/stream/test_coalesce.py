"""Reads over a network: few requests, few bytes too many, the same values."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

import bridge
from bridge.source.bytes import LocalFile
from bridge.stream.buffers import CHUNK
from bridge.stream.coalesce import CoalescedRead, coalesced
from bridge.stream.direct import Read
from bridge.stream.jobs import Job, reads_at_once
from bridge.stream.run import run
from tests.stream.views import KINDS, counted, layers, same


class Distant:
    """Any number of files, each the same random bytes, and every read of them."""

    name, parallel, gap_nbytes = "distant", 3, 100

    def __init__(self, nbytes: int = 1 << 16) -> None:
        self.content = np.random.default_rng(0).integers(0, 256, nbytes, np.uint8).tobytes()
        self.nbytes = nbytes
        self.reads: list[tuple[int, int]] = []

    def byte_source(self, file: str) -> Distant:
        return self

    def readinto(self, buffers: Sequence[memoryview], offset: int) -> None:
        self.reads.append((offset, sum(b.nbytes for b in buffers)))
        for buffer in buffers:
            buffer[:] = self.content[offset : offset + buffer.nbytes]
            offset += buffer.nbytes

    def close(self) -> None:
        """Nothing is open."""


def laid_out(lengths: Sequence[tuple[int, int, str]]) -> tuple[list[Job], int]:
    """Reads with gaps before them, into one leaf."""
    jobs: list[Job] = []
    at = into = 0
    for gap, length, file in sorted(lengths, key=lambda item: item[2]):
        at += gap
        jobs.append(Read(file, at, f"key.{len(jobs)}", [("leaf", into, into + length)], length))
        at, into = at + length, into + length
    return jobs, into


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(1, 500), st.sampled_from("ab")), min_size=1, max_size=30))
def test_joined_reads_read_the_same(lengths: list[tuple[int, int, str]]):
    jobs, nbytes = laid_out(lengths)
    one, two = np.zeros(nbytes, np.uint8), np.zeros(nbytes, np.uint8)
    plain, joined = Distant(), Distant()
    run(jobs, plain, {"leaf": one}, threads=1)
    found = coalesced(jobs, joined)
    run(found, joined, {"leaf": two}, threads=1)
    assert one.tobytes() == two.tobytes()
    assert sum(n for _, n in joined.reads) <= 1.04 * nbytes
    assert len(joined.reads) <= len(plain.reads)
    assert sum(job.nbytes for job in found) == nbytes
    for job in found:
        assert not isinstance(job, CoalescedRead) or job.gap_nbytes <= joined.gap_nbytes


def test_neighbours_are_one_request():
    jobs, _ = laid_out([(0, 10, "a")] * 100)
    (job,) = coalesced(jobs, Distant())
    assert isinstance(job, CoalescedRead)
    assert (job.offset, job.nbytes, job.gap_nbytes) == (0, 1000, 0)


def test_the_shortest_gaps_are_bridged_first():
    jobs, _ = laid_out([(0, 1000, "a"), (90, 1000, "a"), (20, 1000, "a"), (60, 1000, "a")])
    assert [job.nbytes for job in coalesced(jobs, Distant())] == [1000, 3000]  # 80 of 4000 bytes; 170 would be too many
    jobs, _ = laid_out([(0, 10_000, "a"), (101, 10_000, "a")])
    assert len(coalesced(jobs, Distant())) == 2  # few enough, but a longer gap than the store says


def test_no_read_is_longer_than_a_chunk():
    jobs, _ = laid_out([(0, CHUNK // 3, "a")] * 10)
    assert [job.nbytes for job in coalesced(jobs, Distant())] == [CHUNK // 3 * 3] * 3 + [CHUNK // 3]


def test_files_are_not_mixed():
    jobs = [Read(file, 0, "k", [("leaf", 0, 10)], 10) for file in "ab"]
    assert coalesced(jobs, Distant()) == jobs


def test_who_is_at_hand_says_nothing():
    jobs, _ = laid_out([(0, 10, "a")])
    assert reads_at_once(jobs, Distant()) == 3
    assert reads_at_once([], Distant()) is None


TENSORS = {f"layers.{n}.{k}": np.full((40, 30), 10 * n + len(k), np.float32) for n in range(20) for k in ("w", "up")}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_many_small_tensors_are_few_requests(dtype: str, monkeypatch: pytest.MonkeyPatch):
    from fsspec.implementations.memory import MemoryFileSystem

    fs = MemoryFileSystem()
    fs.pipe_file("/together/x.safetensors", save(TENSORS))
    asked: list[int] = []
    whole = MemoryFileSystem.cat_file

    def counted(self: MemoryFileSystem, path: str, start: int, end: int) -> bytes:
        asked.append(end - start)
        return whole(self, path, start=start, end=end)

    monkeypatch.setattr(MemoryFileSystem, "cat_file", counted)
    like = {"layers": {k: jax.ShapeDtypeStruct((20, 40, 30), dtype) for k in ("w", "up")}}
    model = bridge.load("memory://together/x.safetensors", like)
    for n in range(20):
        for k in ("w", "up"):
            assert np.asarray(model["layers"][k][n]).tobytes() == TENSORS[f"layers.{n}.{k}"].astype(dtype).tobytes()
    assert len(asked) == 2  # the header, and all the rest
    assert sum(asked) == len(save(TENSORS))
    fs.rm("/together", recursive=True)


@pytest.mark.parametrize("kind", KINDS)
def test_views_are_few_requests(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Codes and scales of neighbours are neighbours: asked for at once, whatever order the values are made in."""
    monkeypatch.setattr(LocalFile, "parallel", 3)
    monkeypatch.setattr(LocalFile, "gap_nbytes", 64)
    made = layers(kind, 6, (40, 30))
    with made.open(tmp_path / "views") as ckpt:
        for rules in ([], ["h.{l}.w [a b] -> w [l b a]"], ["h.0.w + h.1.w -> s", "h.{l}.w -> w.{l}"]):
            plan = bridge.plan(ckpt, None, rules)
            expected = bridge.load(made.judge(tmp_path / "values.safetensors"), None, rules)
            with counted(monkeypatch) as lengths:
                same(bridge.load(ckpt, None, plan), expected)
            assert plan.nbytes <= sum(lengths) <= 1.04 * plan.nbytes
            assert len(lengths) < len(made.stored)
