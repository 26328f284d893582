"""`scripts/bench`: everything measured, then a table and a plot. Linux only: it watches page cache and memory."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench import report
from bench.cases import CASES
from bench.child import made_mark
from bench.memory import fault_in, free_nbytes
from bench.rows import LOAD, ROWS, Row
from bench.runner import ROOT, CaseError, Samples, cool, make, measure, rounds, start, warm
from bench.saving import COPY
from bench.starting import START
from bench.work import Work, made

_PROCESS = 700 << 20
"""Bytes of a process with JAX and PyTorch in it, before it loads anything."""


@dataclass(frozen=True)
class Options:
    """What the command line asked for."""

    sizes: Sequence[str]
    rows: Sequence[Row]
    rounds: int
    peers: bool
    quick: bool
    cache: Path
    fresh: set[Path] = field(default_factory=set)
    """Where this version's converted form has been made in this run."""


def say(text: str) -> None:
    """A line of progress."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')}  {text}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write the results after every row, so that an interrupt loses one row at most."""
    if sys.platform != "linux":
        say("needs Linux: it empties the page cache and reads /proc")
        return 2
    given = _parser().parse_args(arguments)
    options = _options(given)
    out = report.Report(machine=report.machine(options.cache), quick=options.quick, rounds=options.rounds)
    if given.add:
        out.keep(given.out)
    if os.getloadavg()[0] > 0.5:
        say(f"the load is {os.getloadavg()[0]:.1f}: other programs run, and what is measured now means little")
    for size in options.sizes:
        for row in options.rows:
            if size != "large" or row.large:
                out.add(size, row, *_measured(row, size, options))
                out.write(given.out)
    say(f"written to {given.out}")
    if given.publish:
        out.publish(ROOT / "docs" / "performance.md")
        say("docs/performance.md shows it")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="64 MB and one round: does the bench itself work?")
    parser.add_argument("--large", action="store_true", help="4 GB as well (28 GB on the disk), peers once")
    parser.add_argument("--rounds", type=int, default=5, help="timed processes of each case (default 5)")
    parser.add_argument(
        "--only", nargs="+", metavar="ROW", choices=[row.key for row in (*ROWS, START)], help="these rows"
    )
    parser.add_argument("--add", action="store_true", help="to the results that lie there already, row by row")
    parser.add_argument("--no-peers", action="store_true", help="bridge and the limits only")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "bench", help="where the checkpoints lie")
    parser.add_argument("--out", type=Path, help="where the results go (default: CACHE/results)")
    parser.add_argument("--publish", action="store_true", help="put table and plot into docs/")
    return parser


def _options(given: argparse.Namespace) -> Options:
    given.out = given.out or given.cache / "results"
    sizes = ["quick"] if given.quick else ["half", "large"] if given.large else ["half"]
    rows = [row for row in (*ROWS, START) if not given.only or row.key in given.only]
    return Options(sizes, rows, 1 if given.quick else given.rounds, not given.no_peers, given.quick, given.cache)


def _measured(row: Row, size: str, options: Options) -> tuple[int, dict[str, Samples]]:
    """Bytes stored, and what every case of the row took."""
    if row.code:
        return 0, _started(row, options)
    work = made(options.cache, row.kind, size, row.dtype)
    # To try the bench, and of large checkpoints, peers in one row are enough.
    peers = options.peers and (row is LOAD or size == "half")
    names = [name for name in row.cases if CASES[name].kind != "peer" or (peers and _taken(name, size))]
    samples = {name: Samples() for name in names}
    ready = [name for name in names if _prepared(name, work, row, samples[name], options.fresh)]

    def failed(name: str, why: str) -> None:
        say(f"  {name}: {why}")
        samples[name].failed = why

    def once(*, timed: bool, watched: bool) -> Callable[[str], None]:
        def run(name: str) -> None:
            case, into = CASES[name], samples[name]
            needed = into.need or _PROCESS + int(case.factor * row.growth * work.nbytes)
            needed += work.nbytes if row.cold else 0  # the page cache takes fresh memory too
            fault_in(needed)  # what the page cache holds of other files gives way before ours come
            (cool if row.cold else warm)(_paths(work, case.beside))
            measure(name, work, into, fault_in=needed, timed=timed, watched=watched)

        return run

    say(f"{row.title}: {work.folder.name}, {len(ready)} cases")
    if options.quick:
        rounds(ready, 1, once(timed=True, watched=True), failed)
    else:
        rounds(ready, 1, once(timed=False, watched=True), failed)
        left = [name for name in ready if samples[name].failed is None]
        rounds(left, 1, once(timed=True, watched=False), failed)
        # A peer takes up to a minute for a large one: where it takes many times as long, one time tells.
        again = [name for name in left if samples[name].failed is None]
        again = [name for name in again if size == "half" or CASES[name].kind != "peer"]
        rounds(again, options.rounds - 1, once(timed=True, watched=False), failed)
    return work.nbytes, samples


def _taken(name: str, size: str) -> bool:
    """Whether a peer takes part: of large checkpoints those that read the files themselves, no copies of their own."""
    return size == "half" or CASES[name].beside is None


def _prepared(name: str, work: Work, row: Row, into: Samples, fresh: set[Path]) -> bool:
    """Whether a case can run: what it reads is there, and there is memory for it."""
    case = CASES[name]
    final = int(row.growth * work.nbytes)
    need = _PROCESS + int(case.factor * final) + work.nbytes  # the page cache must keep the files beside it
    if need > free_nbytes():
        into.failed = f"not run: would need about {need / 1e9:.0f} GB, there are {free_nbytes() / 1e9:.0f}"
    elif case.beside is not None:
        try:
            for each in (work.tiny(), work):
                mark = made_mark(each, case.beside)
                if not mark.exists() or (case.beside == "converted" and mark not in fresh):
                    say(f"  making {case.beside} in {each.folder.name}")
                    make(case.beside, each)
                    fresh.add(mark)
        except CaseError as error:
            into.failed = f"not made: {error}"
    if into.failed:
        say(f"  {name}: {into.failed}")
    return into.failed is None


def _paths(work: Work, beside: str | None) -> list[Path]:
    """The files that a case reads."""
    if beside is None:
        return work.paths
    if beside.startswith("."):
        return [path.with_suffix(beside) for path in work.paths]
    place = work.folder / beside
    if beside == COPY:
        return [*work.paths, *(place / path.name for path in work.paths)]
    return [place] if place.is_file() else sorted(p for p in place.rglob("*") if p.is_file() and p.stat().st_size)


def _started(row: Row, options: Options) -> dict[str, Samples]:
    tiny = made(options.cache, "llama", "tiny", "BF16")
    samples = {name: Samples() for name in row.code}
    say(f"{row.title}: {len(samples)} cases")

    def once(name: str) -> None:
        samples[name].seconds.append(start(row.code[name][1].replace("FOLDER", repr(str(tiny.folder)))))

    def failed(name: str, why: str) -> None:
        say(f"  {name}: {why}")
        samples[name].failed = why

    for name in row.code:  # compiled and in the page cache
        start(row.code[name][1].replace("FOLDER", repr(str(tiny.folder))))
    rounds(list(row.code), max(options.rounds * 4, 2), once, failed)
    return samples


if __name__ == "__main__":
    sys.exit(main())
