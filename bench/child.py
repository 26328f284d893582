"""One measurement, in a process of its own: `python -m bench.child CASE WORK RESULT NBYTES`, or `make WHAT WORK`."""

from __future__ import annotations

import gc
import json
import resource
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bench.cases import CASES, MAKERS
from bench.hub import traffic
from bench.memory import fault_in, memory
from bench.work import CORNER, Work


def main(arguments: list[str]) -> None:
    """Make something, or measure something."""
    if arguments[0] == "make":
        what, work = arguments[1], Work.read(Path(arguments[2]))
        MAKERS[what](work)
        made_mark(work, what).touch()
        return
    name, folder, result, needed = arguments
    case, work = CASES[name], Work.read(Path(folder))
    # Everyone does the same work in small first: what is imported on first use, JAX's start and the allocators' own
    # memory are not what is measured.
    case.prepare(work.tiny())()
    run = case.prepare(work)
    traffic()
    gc.collect()
    fault_in(int(needed))
    Path("/proc/self/clear_refs").write_text("5")  # the peak of resident memory starts anew
    before, faults = memory(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    start, cpu = time.monotonic(), time.process_time()
    arrays = run()
    stop, used = time.monotonic(), time.process_time() - cpu
    after, touched = memory(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
    wrong = compare(arrays, work, transposed=case.transposed) if isinstance(arrays, Mapping) else []
    measured = {
        "start": start,
        "stop": stop,
        "cpu": used,
        "faults": touched,
        "before": before,
        "after": after,
        "final": nbytes(arrays),
        "wrong": wrong,
        "traffic": traffic(),
    }
    Path(result).write_text(json.dumps(measured))


def made_mark(work: Work, what: str) -> Path:
    """A file that stands where something beside the checkpoint has been made to its end."""
    return work.folder / f"{what}.made"


def nbytes(arrays: Any) -> int:
    """Bytes of the arrays that the work was for."""
    if isinstance(arrays, Mapping):
        arrays = list(arrays.values())
    return sum(getattr(array, "nbytes", 0) for array in arrays) if isinstance(arrays, list) else 0


def compare(arrays: Mapping[str, Any], work: Work, *, transposed: bool) -> list[str]:
    """The leaves that are not what the files hold: missing, of another shape, or other at the corners of a tensor."""
    leaves = work.leaves()
    wrong = [name for name in leaves if name not in arrays]
    for name in leaves.keys() - set(wrong):
        array, leaf = np.asarray(arrays[name]), leaves[name]
        parts = array.reshape(-1, *array.shape[leaf.stacked * (array.ndim - len(work.places[leaf.keys[0]].shape)) :])
        if len(parts) != len(leaf.keys):
            wrong.append(name)
            continue
        for part, key in zip(parts, leaf.keys, strict=True):
            part, shape = part.T if transposed else part, work.places[key].shape
            got = np.concatenate([part.flat[:CORNER], part.flat[-CORNER:]])
            if part.shape != shape or not np.array_equal(got, work.corners(key).astype(part.dtype)):
                wrong.append(f"{name} ({key})")
    return wrong


if __name__ == "__main__":
    main(sys.argv[1:])
