"""Models as people wrote them: names of published projects, by hand. A file is the rules from an architecture's keys.

`llama.levanter.rules` are those from the keys of the corpus' `llama` to the tree that Levanter has; what they make of the
checkpoint is the model.
"""

from __future__ import annotations

from pathlib import Path

from tests.proposing.folded import checkpoint
from tests.proposing.judge import Pair, pair

FOLDER = Path(__file__).parent / "projects"


def projects() -> list[str]:
    """All trees."""
    return sorted(path.stem for path in FOLDER.glob("*.rules"))


def project(name: str) -> Pair:
    """A checkpoint and such a tree."""
    return pair(name, checkpoint(name.partition(".")[0]), (FOLDER / f"{name}.rules").read_text())
