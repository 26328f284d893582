"""The long run of that comparison: `scripts/fuzz --torch --minutes 20`."""

from __future__ import annotations

import argparse
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.torchfile.judge import verdict
from tests.torchfile.mutants import mutant


def main() -> int:
    """Compare until the time is up. Exit status 1 at the first disagreement, whose file is kept."""
    parser = argparse.ArgumentParser(
        description="Our reader of torch.save's files against torch.load(weights_only=True)."
    )
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=int(time.time()), help="the first of the seeds, one for each file")
    options = parser.parse_args()
    until = time.monotonic() + 60 * options.minutes
    counts: Counter[str] = Counter()
    seed = options.seed
    resource.setrlimit(resource.RLIMIT_AS, (16 << 30, 16 << 30))  # PyTorch allocates whatever a file claims
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.pth"
        while time.monotonic() < until:
            path.write_bytes(mutant(random.Random(seed)))
            try:
                kind, problem = verdict(path)
            except Exception as e:  # noqa: BLE001  an error that is not our own is what we are after
                kind, problem = "broken", f"{type(e).__name__}: {e}"
            if problem is None and sorted(p.name for p in Path(folder).iterdir()) != ["x.pth"]:
                problem = "a file was written"
            if problem is not None:
                kept = Path(f"fuzz-{seed}.pth")
                kept.write_bytes(path.read_bytes())
                print(f"seed {seed}: {problem}\nkept as {kept}", file=sys.stderr)
                return 1
            counts[kind] += 1
            seed += 1
    shown = ", ".join(f"{kind} {count:,}" for kind, count in counts.most_common())
    print(f"{seed - options.seed:,} files from seed {options.seed}: {shown}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
