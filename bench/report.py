"""What was measured, as JSON, as Markdown and as a plot."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from statistics import median
from typing import Any

from bench.cases import CASES
from bench.rows import LOAD, MIB, ROWS, Bound, Row
from bench.runner import ROOT, Samples
from bench.starting import START

_START, _STOP = "<!-- bench: from here on written by scripts/bench -->", "<!-- bench: to here -->"
_PACKAGES = ("jax", "jaxlib", "equinox", "numpy", "ml_dtypes", "safetensors")


@dataclass(frozen=True)
class Entry:
    """A row as it was measured with one checkpoint."""

    size: str
    row: Row
    nbytes: int
    samples: Mapping[str, Samples]

    @property
    def title(self) -> str:
        """The row's title, with the checkpoint's bytes where they matter."""
        tail = f", {self.nbytes / 1e9:.2g} GB" if self.nbytes else ""
        fewer = {
            "small": ", ten thousand of them",
            "many": ", two thousand of them",
            "experts": ", two thousand of them",
        }
        tensors = fewer.get(self.row.kind, "") if self.size == "quick" else ""
        return f"{self.row.title}{tail}{tensors}"

    def case_title(self, name: str) -> str:
        """What the table calls a case."""
        return self.row.code[name][0] if self.row.code else CASES[name].title

    def best(self, name: str, of: Any = median) -> float | None:
        """A case's median (or minimum) in seconds; `None` where it did not run."""
        return of(self.seconds(name)) if self.seconds(name) else None

    def seconds(self, name: str) -> list[float]:
        """What a case took in each round."""
        return self.samples[name].seconds if name in self.samples else []

    def times(self, name: str, other: str) -> float | None:
        """How many times as long as `other` a case took: the median of the rounds, each compared within itself.

        A machine's slow spells last longer than a round, so that they weigh on both.
        """
        found = [a / b for a, b in zip(self.seconds(name), self.seconds(other), strict=False)]
        return median(found) if found else None


@dataclass
class Report:
    """Everything of one run."""

    machine: Mapping[str, str]
    quick: bool
    rounds: int
    entries: list[Entry] = field(default_factory=list)
    folder: Path | None = None

    def add(self, size: str, row: Row, nbytes: int, samples: Mapping[str, Samples]) -> None:
        """One more row, in place of the same one before."""
        made = Entry(size, row, nbytes, samples)
        places = [n for n, entry in enumerate(self.entries) if (entry.size, entry.row.key) == (size, row.key)]
        if places:
            self.entries[places[0]] = made
        else:
            self.entries.append(made)

    def keep(self, folder: Path) -> None:
        """The rows that another run has left in `folder`, until this one measures them again."""
        rows = {row.key: row for row in (*ROWS, START)}
        for kept in json.loads((folder / "bench.json").read_text())["rows"]:
            samples = {
                name: Samples(**{field: value for field, value in case.items() if field != "title"})
                for name, case in kept["cases"].items()
            }
            self.add(kept["size"], rows[kept["row"]], kept["nbytes"], samples)

    def write(self, folder: Path) -> None:
        """`bench.json`, `bench.md`, `bench.png`."""
        from bench.plot import plot

        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        (folder / "bench.json").write_text(json.dumps(self.data(), indent=1) + "\n")
        (folder / "bench.md").write_text(self.markdown())
        plot([entry for entry in self.entries if entry.row is LOAD], folder / "bench.png")

    def publish(self, page: Path) -> None:
        """The results between the marks of a page, and the plot beside it."""
        before, rest = page.read_text().split(_START)
        after = rest.split(_STOP)[1]
        page.write_text(f"{before}{_START}\n\n{self.markdown()}\n{_STOP}{after}")
        if self.folder is not None and (self.folder / "bench.png").exists():
            shutil.copyfile(self.folder / "bench.png", page.with_suffix(".png"))

    def data(self) -> dict[str, Any]:
        """All samples, for machines."""
        rows = [
            {
                "row": entry.row.key,
                "title": entry.title,
                "size": entry.size,
                "nbytes": entry.nbytes,
                "bounds": [_judged(entry, bound) for bound in entry.row.bounds],
                "cases": {name: {"title": entry.case_title(name), **asdict(s)} for name, s in entry.samples.items()},
            }
            for entry in self.entries
        ]
        return {"machine": dict(self.machine), "rounds": self.rounds, "quick": self.quick, "rows": rows}

    def markdown(self) -> str:
        """The same for people."""
        head = [f"- {name}: {value}" for name, value in self.machine.items()]
        if self.quick:
            head.insert(0, "**A quick run: it shows that the bench works, and nothing else.**\n")
        parts = ["\n".join(head), _promises(self.entries)]
        if any(entry.row is LOAD for entry in self.entries):
            parts.append("![Time and memory of each way to load the same checkpoint](performance.png)")
        return "\n\n".join([*parts, *map(_table, self.entries)]) + "\n"


def _promises(entries: list[Entry]) -> str:
    lines = ["### What bridge promises", "", "| work | promised | median | minimum | kept |", "|---|---|---|---|---|"]
    for entry in entries:
        for bound in entry.row.bounds:
            judged = _judged(entry, bound)
            kept = {True: "yes", False: "**no**", None: "not measured"}[judged["kept"]]
            lines.append(
                f"| {entry.title} | {judged['promised']} | {judged['median']} | {judged['minimum']} | {kept} |"
            )
        for name, factor in entry.row.expected.items():
            times = entry.times(name, entry.row.ours)
            if times is not None:
                lowest = (entry.best(name, min) or 0) / (entry.best(entry.row.ours, min) or 1)
                kept = "yes" if times >= factor else "**no**"
                text = f"{entry.case_title(name)} takes ≥ {factor:g} × as long"
                lines.append(f"| {entry.title} | {text} | {times:.1f} × | {lowest:.1f} × | {kept} |")
    return "\n".join(lines)


def _judged(entry: Entry, bound: Bound) -> dict[str, Any]:
    """A promise, what came of it, and whether it was kept (`None`: not measured)."""
    samples = entry.samples.get(bound.case)
    title = entry.case_title(bound.case).replace("*", "")
    if bound.measure != "seconds":
        what = {"anon": "anonymous memory beyond the final arrays", "anon_whole": "anonymous memory"}
        promised = f"{title}: {what.get(bound.measure, 'file-mapped growth')} ≤ {bound.plus / MIB:.0f} MiB"
        if samples is None or not samples.anon:
            return {"promised": promised, "median": "", "minimum": "", "kept": None}
        peak = max(samples.mapped if bound.measure == "mapped" else samples.anon)
        peak -= samples.final if bound.measure == "anon" else 0
        shown = f"{peak / MIB:.1f} MiB"
        return {"promised": promised, "median": shown, "minimum": "", "kept": peak <= bound.plus}
    if not bound.terms:
        return _alone(entry, bound, title)
    names = [" or ".join(entry.case_title(n).removeprefix("limit: ") for n in group) for _, group in bound.terms]
    factors = [f"{factor:g} × " if factor != 1 else "" for factor, _ in bound.terms]
    promised = f"{title} ≤ " + " + ".join(f"{f}({n})" if f else n for f, n in zip(factors, names, strict=True))
    promised += f" + {bound.plus * 1000:.0f} ms" if bound.plus else ""
    # Of several limits the one that is lowest by its own median.
    best = [min(group, key=lambda name: entry.best(name) or inf) for _, group in bound.terms]
    columns = [entry.seconds(name) for name in (bound.case, *best)]
    if not all(columns):
        return {"promised": promised, "median": "", "minimum": "", "kept": None}
    found = [_compared(bound, rounds) for rounds in (list(zip(*columns, strict=False)), [tuple(map(min, columns))])]
    return {"promised": promised, "median": found[0][0], "minimum": found[1][0], "kept": found[0][1]}


def _alone(entry: Entry, bound: Bound, title: str) -> dict[str, Any]:
    """A promise that is compared with nothing: so many seconds, or bytes a second."""
    took = entry.seconds(bound.case)
    promised = f"{title}: ≥ {bound.rate:g} GB of arrays a second" if bound.rate else f"{title} ≤ {_time(bound.plus)}"
    if not took:
        return {"promised": promised, "median": "", "minimum": "", "kept": None}
    found = median(took), min(took)
    rates = [entry.samples[bound.case].final / 1e9 / seconds for seconds in found]
    shown = [f"{rate:.2f} GB/s" for rate in rates] if bound.rate else list(map(_time, found))
    kept = rates[0] >= bound.rate if bound.rate else found[0] <= bound.plus
    return {"promised": promised, "median": shown[0], "minimum": shown[1], "kept": kept}


def _compared(bound: Bound, rounds: list[tuple[float, ...]]) -> tuple[str, bool]:
    """What a case took beside its limits, as text, and whether that is kept: the median of the rounds."""
    limits = [sum(f * x for (f, _), x in zip(bound.terms, others, strict=True)) for _, *others in rounds]
    took = [first for first, *_ in rounds]
    if bound.plus:
        more = median(a - b for a, b in zip(took, limits, strict=True))
        return f"{more * 1000:+.0f} ms".replace("-", "−"), more <= bound.plus
    times = median(a / b for a, b in zip(took, limits, strict=True))
    # One limit reads best as the ratio itself; a sum as times.
    text = f"{_time(median(took))} of {_time(median(limits))}"
    return text if len(bound.terms) > 1 else f"{times * bound.terms[0][0]:.2f} ×", times <= 1


def _table(entry: Entry) -> str:
    least = entry.best(entry.row.ours, min)
    lines = [f"### {entry.title}", ""]
    memory = not entry.row.code
    columns = ["", "median", "minimum"]
    columns += ["× bridge, median", "× bridge, minimum"] if entry.row.ours else []
    columns += ["peak anonymous", "× final", "peak resident, × final"] if memory else []
    distant = any(found.traffic for found in entry.samples.values())
    columns += ["requests", "bytes sent"] if distant else []
    lines += [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    ran = [name for name, found in entry.samples.items() if found.seconds and not found.failed]
    for name in sorted(ran, key=lambda name: entry.best(name) or 0):
        took, shortest = entry.best(name) or 0, entry.best(name, min) or 0
        cells = [entry.case_title(name), _time(took), _time(shortest)]
        if entry.row.ours:
            times = entry.times(name, entry.row.ours)
            cells += [f"{times:.2f}" if times else "", f"{shortest / least:.2f}" if least else ""]
        if memory:
            found = entry.samples[name]
            peak = max(found.anon, default=0)
            shares = [f"{n / found.final:.2f}" if found.final else "" for n in (peak, max(found.resident))]
            cells += [f"{peak / 1e6:.0f} MB", *shares]
        if distant:
            sent = entry.samples[name].traffic
            cells += [f"{sent['requests']}", f"{sent['nbytes'] / 1e6:.1f} MB"] if sent else ["", ""]
        lines.append(f"| {' | '.join(cells)} |")
    failed = [f"- {entry.case_title(n)} did not run: {_quoted(s.failed)}" for n, s in entry.samples.items() if s.failed]
    return "\n".join([*lines, *(["", *failed] if failed else [])])


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"


def _quoted(text: str) -> str:
    # A library's message may name a folder of this machine, which is nobody's business.
    return "`" + re.sub(r"(?<![\w.])/[\w.@+-]+(?:/[\w.@+-]+)+", "…", text).replace("`", "'") + "`"


def machine(cache: Path) -> dict[str, str]:
    """What the numbers belong to: the machine, the system and the versions."""
    cpu = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    total = re.search(r"^MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text(), re.MULTILINE)
    pages = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    huge = re.search(r"\[(\w+)\]", pages.read_text()) if pages.exists() else None
    versions = {
        name: _version(name) for name in (*_PACKAGES, *dict.fromkeys(p for c in CASES.values() for p in c.packages))
    }
    return {
        "when": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC") + f", load {os.getloadavg()[0]:.2f}",
        "bridge": _commit(),
        "machine": f"{cpu[1] if cpu else platform.machine()}, {os.cpu_count()} cores, "
        f"{int(total[1]) / 2**20 if total else 0:.0f} GiB{_virtual()}; checkpoints on {_file_system(cache)}",
        "system": f"{platform.system()} {platform.release()}, transparent huge pages = {huge[1] if huge else 'none'}, "
        f"Python {platform.python_version()}, JAX on the CPU",
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _commit() -> str:
    import bridge

    done = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    return f"{bridge.__version__} ({done.stdout.strip()})" if done.returncode == 0 else bridge.__version__


def _virtual() -> str:
    return ", virtual" if " hypervisor" in Path("/proc/cpuinfo").read_text() else ""


def _file_system(folder: Path) -> str:
    place = str(folder.resolve())
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    under = [(point, kind) for point, kind in mounts if place.startswith(point.rstrip("/") + "/")]
    return max(under, key=lambda found: len(found[0]))[1] if under else "an unknown file system"
