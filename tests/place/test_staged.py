"""Staging towards devices that share no memory with the host, as far as the CPU backend can play them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.place.test_sharding import run


def test_pieces_are_written_into_the_final_arrays(tmp_path: Path):
    """`donating.py` holds the cases: JAX fixes the number of devices once, when it starts.

    Memory that plays a device's comes from `malloc`. After the first large `free`, glibc hands out such blocks from heaps
    that it keeps, by thread, and what is freed there counts on: a threshold that stays gives each block back at once.
    """
    env = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "MALLOC_MMAP_THRESHOLD_": str(1 << 20),
    }
    run([sys.executable, "-m", "tests.place.donating", str(tmp_path)], env)
