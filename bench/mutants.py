"""`scripts/mutants_check`: every architecture of `bridge.models` with each planted mistake, as `bridge.check` sees it.

The ports and the mistakes are those of `tests/checking`. Each architecture runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO

from bench.runner import ROOT, CaseError, environment

PAGE = ROOT / "docs" / "checking.md"
STORE = ROOT / "bench" / "mutants.json"
"""What was published, an architecture in a dtype a line: what is not measured again stays. `code` is what it was of."""
FAST = {"XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"}
"""Most of the time goes into compiling small models, each for one run."""
BEGIN, END = "<!-- mutants: written by scripts/mutants_check -->", "<!-- mutants: end -->"
DTYPES = ("float32", "bfloat16")


def say(text: str, stream: TextIO | None = None) -> None:
    """A line for whoever runs the script."""
    (stream or sys.stdout).write(text + "\n")


def main() -> None:
    """Measure, print, and with `--publish` write the table into the page."""
    parser = argparse.ArgumentParser(prog="scripts/mutants_check", description=__doc__)
    parser.add_argument("--only", nargs="+", default=[], metavar="ARCHITECTURE")
    parser.add_argument("--dtype", nargs="+", default=list(DTYPES), choices=DTYPES)
    parser.add_argument("--publish", action="store_true", help="keep each row as it is measured, and write the table")
    parser.add_argument("--continue", action="store_true", dest="go_on", help="only rows that the code as it is lacks")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--one", nargs=2, metavar=("ARCHITECTURE", "DTYPE"), help="in this process, as JSON")
    parser.add_argument("--rounding", action="store_true", help="how far right layers are, and wrong ones")
    args = parser.parse_args()
    if args.rounding:
        from bench.rounding import measured

        with tempfile.TemporaryDirectory() as folder:
            measured(_record(Path(folder)), say)
        return
    if args.one:
        say(json.dumps(one(*args.one)))
        return
    from tests.checking.ports import ARCHITECTURES

    code = fingerprint()
    asked = [(name, dtype) for dtype in args.dtype for name in args.only or ARCHITECTURES]
    known = {(one["name"], one["dtype"]): one for one in stored([]) if args.go_on and one.get("code") == code}
    measured, failed = [known[each] for each in asked if each in known], list[str]()
    with ThreadPoolExecutor(args.jobs) as pool:
        rest = [pool.submit(_in_a_process, *each) for each in asked if each not in known]
        for done in as_completed(rest):
            if isinstance(error := done.exception(), CaseError):
                failed.append(str(error))  # the others go on
                continue
            measured.append(done.result() | {"code": code})
            if args.publish:
                publish(stored(measured[-1:]))
    say(table(stored([]) if args.publish else measured))
    if failed:
        sys.exit("\n".join(failed))


def publish(found: Sequence[dict[str, Any]]) -> None:
    """Write the rows into the store, and the table into the page."""
    STORE.write_text("[\n" + ",\n".join(json.dumps(one) for one in found) + "\n]\n")
    page = PAGE.read_text()
    before, _, rest = page.partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{table(found)}\n{END}{rest.partition(END)[2]}")


def stored(measured: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was published before, with what was measured in its place."""
    found = {(one["dtype"], one["name"]): one for one in (json.loads(STORE.read_text()) if STORE.exists() else [])}
    found |= {(one["dtype"], one["name"]): one for one in measured}
    return sorted(found.values(), key=lambda one: (DTYPES.index(one["dtype"]), one["name"]))


def fingerprint() -> str:
    """Of the code that a row depends on."""
    files = [*sorted((ROOT / "bridge").rglob("*.py*")), *sorted((ROOT / "tests" / "checking").glob("*.py"))]
    digest = sha256()
    for file in files:
        if "__pycache__" not in file.parts:
            digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def _in_a_process(name: str, dtype: str) -> dict[str, Any]:
    start = time.perf_counter()
    command = [sys.executable, "-m", "bench.mutants", "--one", name, dtype]
    done = subprocess.run(command, cwd=ROOT, env=environment(FAST), capture_output=True, text=True, check=False)
    if done.returncode:
        raise CaseError(f"{name} in {dtype}:\n{done.stderr}")
    found = json.loads(done.stdout.splitlines()[-1])
    say(f"{name:21} {dtype:9} {time.perf_counter() - start:5.0f} s  {summary(found)}", sys.stderr)
    return found


def one(name: str, dtype: str) -> dict[str, Any]:
    """What is said of the right port and of each mistake of one architecture."""
    from tests.checking.mistakes import mistakes
    from tests.checking.planted import moves, verdict
    from tests.checking.ports import port

    with tempfile.TemporaryDirectory() as folder:
        right = port(name, Path(folder), _record(Path(folder)), dtype)
        check = right.check(*right.loaded(right.rules))
        rows: list[dict[str, Any]] = []
        for mistake, planted in mistakes(right).items():
            said = verdict(right, planted)
            moved = said.seen or dtype == "float32" or moves(right, planted)
            rows.append(
                {"mistake": mistake, "moves": moved} | {k: getattr(said, k) for k in ("seen", "named", "repaired")}
            )
            if not (said.seen and said.named and said.repaired is not False):
                say(f"{name} {dtype}: {mistake}\n{said.text}", sys.stderr)
        return {"name": name, "dtype": dtype, "ok": check.ok and check.ran, "covered": check.covered, "rows": rows}


def _record(folder: Path) -> Any:
    import importlib.util
    from importlib.resources import files

    path = folder / "record.py"
    path.write_text(files("bridge.checking").joinpath("record.py.txt").read_text(encoding="utf-8"))
    spec = importlib.util.spec_from_file_location("record", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["record"] = module
    spec.loader.exec_module(module)
    return module.record


def summary(found: dict[str, Any]) -> str:
    """One architecture in a line."""
    rows = [row for row in found["rows"] if row["moves"]]
    rules = [row for row in rows if row["repaired"] is not None]
    named, repaired = sum(row["named"] for row in rows), sum(row["repaired"] for row in rules)
    right = "right" if found["ok"] else "NOT RIGHT"
    return f"the port is {right}; named first {named} of {len(rows)}, right rule {repaired} of {len(rules)}"


def table(found: Sequence[dict[str, Any]]) -> str:
    """The Markdown table: a row for each mistake, a column for each dtype; and the sums."""
    lines = [f"transformers {version('transformers')}, torch {version('torch')}, jax {version('jax')}.", ""]
    dtypes = list(dict.fromkeys(each["dtype"] for each in found))
    heads = [f"{dtype}: {what}" for dtype in dtypes for what in ("named first", "right rule")]
    lines += [f"| mistake | {' | '.join(heads)} |", f"|---|{'---|' * len(heads)}"]
    kinds = list(dict.fromkeys(row["mistake"] for each in found for row in each["rows"]))
    for kind in [*kinds, "**all**"]:
        cells: list[str] = []
        for dtype in dtypes:
            rows = [
                r for each in found if each["dtype"] == dtype for r in each["rows"] if kind in (r["mistake"], "**all**")
            ]
            rows = [row for row in rows if row["moves"]]
            rules = [row for row in rows if row["repaired"] is not None]
            cells.append(f"{sum(row['named'] for row in rows)} of {len(rows)}")
            cells.append(f"{sum(row['repaired'] for row in rules)} of {len(rules)}" if rules else "")
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    for dtype in dtypes:
        ports = [each for each in found if each["dtype"] == dtype]
        right = sum(each["ok"] for each in ports)
        names = ", ".join(each["name"] for each in ports)
        lines += [
            "",
            f"Ports without a mistake of which the check says so in {dtype}: {right} of {len(ports)} ({names}).",
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
