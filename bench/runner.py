"""Processes started, watched and read, one at a time, on a machine brought into the same state before each."""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.cases import CASES
from bench.memory import fault_in, parse
from bench.work import Work

ROOT = Path(__file__).resolve().parent.parent
_LIMIT = 900  # seconds of one process
_READ = 16 << 20


class CaseError(Exception):
    """A case that could not do its work, and why."""


@dataclass
class Samples:
    """What was measured of one case, a value for each round; memory in bytes over that before the work."""

    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    faults: list[int] = field(default_factory=list)
    anon: list[int] = field(default_factory=list)
    mapped: list[int] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)
    traffic: dict[str, int] = field(default_factory=dict)
    final: int = 0
    need: int = 0
    failed: str | None = None


def environment(more: Mapping[str, str]) -> dict[str, str]:
    """The caller's variables, with this checkout in front of what is installed."""
    own = {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "2"}
    # What pip has installed is compiled; so is this checkout, whatever the caller's shell says of such files.
    return {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"} | own | dict(more)


def make(what: str, work: Work) -> None:
    """A file or folder beside the checkpoint, made in a process of its own. **Raises:** `CaseError`."""
    with _process(["make", what, work.folder], {}):
        pass


def warm(paths: Sequence[Path]) -> None:
    """Every byte into the page cache."""
    buffer = memoryview(bytearray(_READ))
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def cool(paths: Sequence[Path]) -> None:
    """Every byte out of the page cache. **Raises:** `CaseError` where it stays."""
    for path in paths:
        with path.open("rb", buffering=0) as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    share = resident_share(paths)
    if share > 0.01:
        raise CaseError(f"{share:.0%} of the files stay in the page cache")


def resident_share(paths: Sequence[Path]) -> float:
    """How much of the files the page cache holds."""
    libc = ctypes.CDLL(None, use_errno=True)
    resident = pages = 0
    for path in paths:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE) as block:
            count = -(-len(block) // mmap.PAGESIZE)
            found = (ctypes.c_ubyte * count)()
            start = ctypes.c_char.from_buffer(block)
            if libc.mincore(ctypes.byref(start), ctypes.c_size_t(len(block)), found):
                raise OSError(ctypes.get_errno(), "mincore")
            del start
            resident, pages = resident + sum(byte & 1 for byte in bytes(found)), pages + count
    return resident / pages


def measure(name: str, work: Work, into: Samples, *, fault_in: int, timed: bool, watched: bool) -> None:
    """One process of one case.

    **Arguments:**

    - `fault_in`: bytes of memory to fault in for it just before its clock starts.
    - `timed`: its time counts.
    - `watched`: its memory is looked at every millisecond. That takes a share of a core: do not time the same process.
    """
    case = CASES[name]
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, "result.json")
        with _process([name, work.folder, result, str(fault_in)], case.environment) as process:
            seen = _watch(process) if watched else []
        measured = json.loads(result.read_text())
    if measured["wrong"]:
        raise CaseError(f"gave other values than the files hold: {', '.join(measured['wrong'][:3])}")
    into.final, into.traffic = measured["final"], measured["traffic"]
    before, after = measured["before"], measured["after"]
    into.need = max(into.need, after["VmHWM"])
    into.resident.append(after["VmHWM"] - before["VmRSS"])
    if timed:
        into.seconds.append(measured["stop"] - measured["start"])
        into.cpu.append(measured["cpu"])
        into.faults.append(measured["faults"])
    if watched:
        inside = [sample for moment, sample in seen if measured["start"] <= moment <= measured["stop"]] + [after]
        into.anon.append(max(_anon(sample) for sample in inside) - _anon(before))
        into.mapped.append(max(sample["RssFile"] for sample in inside) - before["RssFile"])


def _anon(sample: Mapping[str, int]) -> int:
    return sample["RssAnon"] + sample["RssShmem"]


def _watch(process: subprocess.Popen[str]) -> list[tuple[float, dict[str, int]]]:
    """A process' memory about every millisecond until it ends."""
    seen: list[tuple[float, dict[str, int]]] = []
    with Path(f"/proc/{process.pid}/status").open("rb", buffering=0) as file:
        while process.poll() is None:
            sample = parse(os.pread(file.fileno(), 8192, 0).decode())
            if "VmRSS" in sample:  # a process that is ending has none
                seen.append((time.monotonic(), sample))
            time.sleep(0.001)
    return seen


@contextmanager
def _process(arguments: Sequence[str | Path], more: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """`python -m bench.child …`, waited for. **Raises:** `CaseError` with what it said last."""
    # A file, not a pipe: a process that says more than a pipe holds would wait for a reader.
    with tempfile.TemporaryFile("w+") as out:
        command = [sys.executable, "-m", "bench.child", *arguments]
        process = subprocess.Popen(command, env=environment(more), cwd=ROOT, stdout=out, stderr=out, text=True)
        try:
            yield process
            code = process.wait(_LIMIT)
        except subprocess.TimeoutExpired as error:
            raise CaseError(f"had not ended after {_LIMIT} s") from error
        finally:
            process.kill()
            process.wait()
        if code:
            out.seek(0)
            raise CaseError(_reason(code, out.read()))


def start(code: str) -> float:
    """Seconds from the start of a Python process until its code is done. One clock runs for all processes."""
    program = [sys.executable, "-c", f"{code}\nimport time; print(time.monotonic())"]
    fault_in(0)
    begin = time.monotonic()
    done = subprocess.run(program, env=environment({}), cwd=ROOT, capture_output=True, text=True, timeout=_LIMIT)
    if done.returncode:
        raise CaseError(_reason(done.returncode, done.stderr))
    return float(done.stdout.split()[-1]) - begin


def _reason(code: int, said: str) -> str:
    """The last line that a process said, or the signal that ended it."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return (lines[-1][:300] if code > 0 and lines else f"ended by signal {-code}").replace(str(ROOT), ".")


def rounds(names: Sequence[str], count: int, once: Callable[[str], None], failed: Callable[[str, str], None]) -> None:
    """Every case once in each round, in another order each time; one that fails is not tried again."""
    left = list(names)
    order = random.Random(0)
    for _ in range(count):
        order.shuffle(left)
        for name in list(left):
            try:
                once(name)
            except CaseError as error:
                failed(name, str(error))
                left.remove(name)
