"""Nothing grows with the number of loads and saves; `scripts/soak` runs a thousand."""

from __future__ import annotations

from pathlib import Path

from tests.load.soaking import run


def test_nothing_grows(tmp_path: Path):
    start, stop = run(tmp_path, 60, before=20)
    assert stop.descriptors == start.descriptors
    assert stop.threads == start.threads
    # A round that kept its model, its arrays or its plan would add 40 times 2 MiB, or 40 times hundreds of objects.
    assert stop.nbytes < start.nbytes + (16 << 20)
    assert stop.objects < start.objects + 40 * 20
