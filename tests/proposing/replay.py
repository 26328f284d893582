"""Every plan of the corpus as text, so that a commit's diff shows what it changes in any of them.

`python -m tests.proposing.replay` writes `replayed.txt` anew: review the diff. Plans that a person would read stand there
as their concrete rules, those of generated namings as one number.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bridge.planning.plan import Plan
from tests.proposing.folded import checkpoint, names
from tests.proposing.judge import moves, pair
from tests.proposing.own import configs, own
from tests.proposing.projects import project, projects
from tests.proposing.renamed import Renaming

FILE = Path(__file__).parent / "replayed.txt"
LARGE = 5_000  # keys; of generated namings of more, one is enough


def spelled(plan: Plan) -> str:
    """The plan's concrete rules, and a number that changes with what they come to."""
    return "\n".join([f"{len(plan.keys)} keys, {len(plan.leaves)} leaves, {number(plan)}", *plan.texts])


def number(plan: Plan) -> str:
    """A number for which elements of which keys are which of which leaves."""
    found = sorted((leaf, sorted(map(repr, maps))) for leaf, maps in moves(plan).items())
    return hashlib.sha256(repr((found, sorted(plan.dropped.items()), plan.lossy)).encode()).hexdigest()[:16]


def _generated(name: str) -> str:
    made = pair(name, checkpoint(name), Renaming(checkpoint(name), f"{name} replayed").rules())
    return f"{len(made.rules)} rules, {len(made.plan.texts)} concrete ones, {number(made.plan)}"


def plans() -> dict[str, Callable[[], str]]:
    """What there is to replay."""
    found: dict[str, Callable[[], str]] = {}
    found |= {f"bridge.models: {name}": partial(lambda name: spelled(own(name)[0].plan), name) for name in configs()}
    found |= {f"project: {name}": partial(lambda name: spelled(project(name).plan), name) for name in projects()}
    small = [name for name in names() if len(checkpoint(name)) < LARGE]
    return found | {f"generated: {name}": partial(_generated, name) for name in small}


def read() -> dict[str, str]:
    """What each plan was."""
    sections = FILE.read_text().split("\n\n")
    return {title.removeprefix("# "): body for title, _, body in (s.strip("\n").partition("\n") for s in sections)}


def main() -> None:
    """Write them all."""
    FILE.write_text("\n\n".join(f"# {title}\n{make()}" for title, make in plans().items()) + "\n")


if __name__ == "__main__":
    main()
