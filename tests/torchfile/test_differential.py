"""Files that are nearly right: refused, or read as PyTorch reads them."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from tests.torchfile import judge
from tests.torchfile.judge import verdict
from tests.torchfile.mutants import mutant

pytestmark = pytest.mark.torch


def test_mutants(tmp_path: Path):
    """`scripts/fuzz --torch` goes on where this stops."""
    path = tmp_path / "x.pth"
    counts: Counter[str] = Counter()
    for seed in range(1500):
        path.write_bytes(mutant(random.Random(seed)))
        kind, problem = verdict(path)
        assert problem is None, f"seed {seed}: {problem}"
        counts[kind] += 1
    assert counts["equal"] > 100
    assert counts["both refuse"] > 100


def test_this_test_can_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A reader that is off by one element."""
    entry_value = judge.value
    monkeypatch.setattr(judge, "value", lambda ckpt, key: entry_value(ckpt, key) + 1)
    path = tmp_path / "x.pth"
    found: set[str | None] = set()
    for seed in range(200):
        path.write_bytes(mutant(random.Random(seed)))
        found.add(verdict(path).kind)
    assert "differ" in found
