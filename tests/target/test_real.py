"""A user without rights and a disk without room, both of them real."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = [sys.executable, "-m", "tests.target.real"]


def run(command: list[str], **env: str) -> None:
    more = os.environ | {"JAX_PLATFORMS": "cpu", **env}
    done = subprocess.run(command, env=more, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip().endswith("ok"), done.stdout


def test_a_user_who_may_not():
    """Not in pytest's own folder, which another user may not even enter."""
    folder = Path(tempfile.mkdtemp())
    try:
        run([*PROGRAM, "denied", str(folder)])
    finally:
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o755)
        shutil.rmtree(folder)


def mounting(folder: Path) -> list[str] | None:
    """What comes before a command to give it a disk of two megabytes in `folder`; `None` where nobody may mount one."""
    own = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
    mount = f"mount -t tmpfs -o size=2m tmpfs '{folder}'"
    try:
        tried = subprocess.run([*own, "sh", "-c", mount], capture_output=True, timeout=60)
    except FileNotFoundError:
        return None
    return [*own, "sh", "-c", f'{mount} && exec "$@"', "sh"] if tried.returncode == 0 else None


def test_a_disk_that_is_full(tmp_path: Path):
    """Where no disk can be mounted, `test_a_full_disk_leaves_the_old_checkpoint` has a limit of the system's instead."""
    disk, elsewhere = tmp_path / "disk", tmp_path / "elsewhere"
    disk.mkdir()
    before = mounting(disk)
    if before is None:
        pytest.skip("a file system can be mounted neither as root nor in a namespace of one's own")
    run([*before, *PROGRAM, "full", str(disk)], ELSEWHERE=str(elsewhere))
