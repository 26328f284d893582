"""What `bridge.suggest` proposes over the corpus: rules that plan, and nothing wrong without a mark.

`scripts/suggest` measures far more, from fresh seeds.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.proposing.folded import checkpoint, names
from tests.proposing.judge import judged
from tests.proposing.measure import Asked, by_hand, generated, of_bridge, proposed
from tests.proposing.own import configs
from tests.proposing.projects import projects
from tests.proposing.stored import store

SMALL = [name for name in names() if len(checkpoint(name)) < 1000]
LARGE = "deepseek_v3.stacks"  # seconds; scripts/suggest has it


def check(folder: Path, pairs: Iterable[Asked]) -> None:
    """That nothing is wrong without a mark."""
    for asked in pairs:
        verdict = judged(asked.pair, proposed(store(folder / "model", asked.entries), asked.like))
        assert verdict.wrong == 0, (asked.pair.name, verdict.examples)
        assert verdict.right > 0


@pytest.mark.parametrize("name", [name for name in projects() if name != LARGE])
def test_trees_of_other_projects(tmp_path: Path, name: str) -> None:
    check(tmp_path, by_hand([name]))


@pytest.mark.parametrize("name", configs())
def test_models_of_bridge(tmp_path: Path, name: str) -> None:
    check(tmp_path, of_bridge([name]))


@pytest.mark.parametrize("name", SMALL[::6])
def test_namings_from_a_seed(tmp_path: Path, name: str) -> None:
    check(tmp_path, generated(1, 1, [name]))
