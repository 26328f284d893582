"""Every plan of the corpus is what it was. If a change is meant: python -m tests.proposing.replay, and review the diff."""

from __future__ import annotations

from functools import cache

import pytest

from tests.proposing.folded import checkpoint, names, read, written
from tests.proposing.replay import plans
from tests.proposing.replay import read as replayed

PLANS = plans()


@cache
def was() -> dict[str, str]:
    """The file, read once."""
    return replayed()


@pytest.mark.parametrize("title", PLANS)
def test_plan(title: str):
    """If the change is meant: python -m tests.proposing.replay"""
    assert PLANS[title]() == was()[title]


def test_nothing_else_is_replayed():
    assert was().keys() == PLANS.keys()


def test_the_corpus_is_read_as_it_is_written():
    assert len(names()) >= 60
    for name in names():
        entries = checkpoint(name)
        assert len({entry.name for entry in entries}) == len(entries)
        assert {*read(written("again", entries))} == {*entries}
    assert len(checkpoint("deepseek_v3")) == 45_395  # as many as the published one has, without scales
