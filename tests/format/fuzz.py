"""The long run of the differential test: `scripts/fuzz --minutes 20`."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.craft import reference
from tests.format.judge import disagreement
from tests.format.mutants import mutant


def main() -> int:
    """Compare until the time is up. Exit status 1 at the first disagreement, whose file is kept."""
    parser = argparse.ArgumentParser(description="Our header reader against the reference, on nearly right headers.")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=int(time.time()), help="the first of the seeds, one for each file")
    options = parser.parse_args()
    until = time.monotonic() + 60 * options.minutes
    executions = accepted = 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.safetensors"
        while time.monotonic() < until:
            seed = options.seed + executions
            path.write_bytes(mutant(random.Random(seed)).content)
            try:
                problem = disagreement(path)
            except Exception as e:  # noqa: BLE001  an error that is not our own is what we are after
                problem = f"{type(e).__name__}: {e}"
            if problem is not None:
                kept = Path(f"fuzz-{seed}.safetensors")
                kept.write_bytes(path.read_bytes())
                print(f"seed {seed}: {problem}\nkept as {kept}", file=sys.stderr)
                return 1
            executions += 1
            accepted += reference(path) is not None
    print(f"{executions:,} files from seed {options.seed}, {accepted:,} of them accepted by both: no disagreement")
    return 0


if __name__ == "__main__":
    sys.exit(main())
