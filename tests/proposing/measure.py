"""What proposals are worth: every architecture of the corpus, in people's namings and in ones drawn from a fresh seed.

`scripts/suggest` runs this. The seed is the clock's unless one is given, so that nobody has tuned on it; it is printed,
and given again it makes the same pairs. A pair is named by architecture, seed and number: llama/1234/0.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax

import bridge
from bridge.api.skeleton import skeleton
from tests.proposing.folded import Entry, checkpoint, names
from tests.proposing.judge import Pair, Proposed, Verdict, judged, pair
from tests.proposing.own import configs, own
from tests.proposing.projects import project, projects
from tests.proposing.renamed import Renaming
from tests.proposing.stored import in_fp8, store

KINDS = ("right", "marked", "wrong_marked", "wrong", "unmatched")


class Asked(NamedTuple):
    """A pair, its checkpoint's keys, and its model as a user has it."""

    pair: Pair
    entries: Sequence[Entry]
    like: Any


def structs(made: Pair) -> dict[str, jax.ShapeDtypeStruct]:
    """A model that is a dict of its leaves."""
    return {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in made.template.leaves.items()}


def generated(seed: int, each: int, only: Sequence[str]) -> Iterator[Asked]:
    """Pairs that nobody has seen."""
    for name in only or names():
        for number in range(each if name in names() else 0):
            called = f"{name}/{seed}/{number}"
            made = pair(called, checkpoint(name), Renaming(checkpoint(name), called).rules())
            yield Asked(made, checkpoint(name), structs(made))


def by_hand(only: Sequence[str]) -> Iterator[Asked]:
    """Trees of published projects."""
    for name in projects():
        if not only or name in only:
            made = project(name)
            yield Asked(made, checkpoint(name.partition(".")[0]), structs(made))


def of_bridge(only: Sequence[str]) -> Iterator[Asked]:
    """The models of bridge.models."""
    for name in configs():
        if not only or name in only:
            made, like = own(name)
            yield Asked(made, checkpoint(name), like)


def proposed(source: Path, like: Any) -> Proposed:
    """What a user gets, and how much processor time it takes: others may be at work on the machine."""
    start = time.process_time()
    found = bridge.suggest(source, like)
    str(found)
    return Proposed(found.rules, found.certain, found.doubtful, time.process_time() - start)


def measured(title: str, pairs: Iterable[Asked], folder: Path, show: int) -> list[tuple[Pair, Verdict]]:
    """The verdicts on some pairs; prints what is not right, and the line of the table."""
    found: list[tuple[Pair, Verdict]] = []
    for asked in pairs:
        source = store(folder / "model", asked.entries)
        try:
            verdict = judged(asked.pair, proposed(source, asked.like))
        except (bridge.BridgeError, ValueError, LookupError) as error:  # what breaks is a failure, and the rest goes on
            print(f"FAILED {asked.pair.name}: {type(error).__name__}: {error}"[:600])
            continue
        found.append((asked.pair, verdict))
        report(asked.pair, verdict, show)
    if found:
        print(line(title, found), flush=True)
    return found


def report(made: Pair, verdict: Verdict, count: int) -> None:
    """What is not right of one pair."""
    if verdict.wrong:
        print(f"WRONG {made.name}: {verdict.wrong} of {verdict.leaves} leaves wrong without a mark")
    elif verdict.right < verdict.leaves:
        print(f"      {made.name}: {verdict.right} of {verdict.leaves} leaves right and unmarked")
    for example in (*verdict.examples[:count], *verdict.lost[:count]):
        print(f"          {example[:250]}")
    sys.stdout.flush()


def line(title: str, found: Sequence[tuple[Pair, Verdict]]) -> str:
    """The shares in per cent, averaged over pairs; rules printed against a person's; the slowest.

    First stands what is right and unmarked of what headers can decide, then the shares of all leaves.
    """
    verdicts = [verdict for _, verdict in found]
    shares = [sum(getattr(v, kind) / v.leaves for v in verdicts) / len(verdicts) * 100 for kind in KINDS]
    decided = sum(v.right / (v.leaves - v.open) for v in verdicts if v.leaves > v.open) / len(verdicts) * 100
    rules, persons = sum(v.rules for v in verdicts), sum(v.persons for v in verdicts)
    slowest = max(found, key=lambda each: each[1].seconds)
    shown = " | ".join(f"{share:.1f}" if share else "0" for share in shares)
    times = f"{slowest[1].seconds:.1f} s ({slowest[0].name.partition('/')[0]})"
    return f"| {title} | {len(found)} | {decided:.1f} | {shown} | {rules} / {persons} | {times} |"


def skeletons(only: Sequence[str], folder: Path) -> int:
    """That what `--skeleton` prints for each architecture runs, and plans; how many do not."""
    bad = 0
    for name in only or names():
        source = store(folder / "model", checkpoint(name))
        scope: dict[str, Any] = {}
        exec(skeleton(source), scope)
        if not bridge.plan(source, eqx.filter_eval_shape(scope["make"]), scope["RULES"]).ok:
            bad += 1
            print(f"WRONG skeleton of {name}")
    print(f"skeletons: {len(only or names()) - bad} of {len(only or names())} plan")
    return bad


def timed(folder: Path) -> None:
    """How long the largest take, and a Llama."""
    sizes: list[tuple[str, Sequence[Entry], dict[str, object] | None]] = [
        ("llama", checkpoint("llama"), None),
        ("deepseek_v3", checkpoint("deepseek_v3"), None),
        ("deepseek_v3 in FP8", *in_fp8(checkpoint("deepseek_v3"))),
    ]
    for name, entries, config in sizes:
        tree = project("llama.levanter" if name == "llama" else "deepseek_v3.stacks")
        source = store(folder / "timed", entries, config)
        best = min(proposed(source, structs(tree)).seconds for _ in range(3))
        print(f"{name}: {len(entries):,} keys, {best:.2f} s")


def main() -> None:
    """Print what is not right of each pair, and the table."""
    parser = argparse.ArgumentParser(prog="scripts/suggest", description=__doc__)
    parser.add_argument("--seed", type=int, default=int(time.time()) % 1_000_000)
    parser.add_argument("--each", type=int, default=2, help="generated namings for each architecture")
    parser.add_argument("--sets", nargs="*", default=["own", "people", "generated", "skeletons", "times"])
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--show", type=int, default=3, help="leaves to show of a pair that is not all right")
    said = parser.parse_args()
    print(f"seed {said.seed}")
    verdicts: list[tuple[Pair, Verdict]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sets: dict[str, Callable[[], list[tuple[Pair, Verdict]]]] = {
            "own": lambda: measured("models of bridge.models", of_bridge(said.only), folder, said.show),
            "people": lambda: measured("trees of other projects", by_hand(said.only), folder, said.show),
            "generated": lambda: measured(
                f"generated, seed {said.seed}", generated(said.seed, said.each, said.only), folder, said.show
            ),
        }
        for kind in said.sets:
            if kind in sets:
                verdicts += sets[kind]()
        bad = skeletons(said.only, folder) if "skeletons" in said.sets else 0
        if "times" in said.sets:
            timed(folder)
    sys.exit(bad > 0 or any(verdict.wrong for _, verdict in verdicts))


if __name__ == "__main__":
    main()
