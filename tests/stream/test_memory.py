"""Memory that is not there, or not given: said before a weight is read."""

from __future__ import annotations

import errno
import mmap
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bridge
from tests.save.files import write


def test_memory_that_is_not_given_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Large leaves lie in mappings of their own, which fail otherwise than the allocator does."""
    write(tmp_path / "x.safetensors", {"w": np.zeros(1 << 20, np.float32)})

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr(mmap, "mmap", full)
    with pytest.raises(bridge.PlanError, match=r"needs 4\.2 MB of memory at once, and the system does not give it"):
        bridge.load(tmp_path / "x.safetensors", None)


@pytest.mark.parametrize("budget", [None, 1 << 23])
def test_memory_that_is_not_there_is_said_before_a_weight_is_read(
    budget: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """What lies on devices that are the host itself counts as what lies in it, staged or not."""
    with bridge.open(write(tmp_path / "x.safetensors", {"w": np.zeros(1 << 23, np.float32)})) as ckpt:
        plan = bridge.plan(ckpt, None, max_host_bytes=budget)
        needed = (1 << 25) + (budget or 0)
        monkeypatch.setattr("bridge.place.work.available_nbytes", lambda: needed - 1)
        monkeypatch.setattr(os, "preadv", None)  # to be called would be an error of another kind
        with pytest.raises(bridge.PlanError, match=r" of memory at once, .* are available\. Free some"):
            bridge.load(ckpt, None, plan, max_host_bytes=budget)


def test_memory_that_is_not_given_to_a_piece_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path / "x.safetensors", {"w": np.zeros(1 << 22, np.float32)})

    def full(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("bridge.place.staged.empty", full)
    with pytest.raises(bridge.PlanError, match=r"needs 25\.2 MB of memory at once, and the system does not give it"):
        bridge.load(tmp_path / "x.safetensors", None, max_host_bytes=1 << 23)
