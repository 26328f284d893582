"""Sharded loads over eight forced host devices, against numpy; run in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent


@pytest.mark.parametrize("part", ["meshes", "forms", "errors", "reads", "staged"])
def test_on_eight_devices(part: str, tmp_path: Path):
    """`eight_devices.py` holds the cases: JAX fixes the number of devices once, when it starts."""
    env = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    command = [sys.executable, "-m", "tests.place.eight_devices", part, str(tmp_path)]
    run(command, env)


def test_every_kind_on_eight_devices(tmp_path: Path):
    env = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    run([sys.executable, "-W", "error", "-m", "tests.place.eight_kinds", str(tmp_path)], env)


def run(command: list[str], env: dict[str, str]) -> None:
    done = subprocess.run(command, env=env, cwd=HERE.parents[1], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip().endswith("ok"), done.stdout
