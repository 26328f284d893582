"""Real processes under `jax.distributed`, on 127.0.0.1: each reads its own bytes and nothing more."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

ROOT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def written(folder: Path) -> None:
    rng = np.random.default_rng(0)
    layers, experts, d = 2, 8, 512
    tensors = {f"l.{n}.rows": rng.standard_normal((512, d), np.float32) for n in range(layers)}
    tensors |= {f"l.{n}.e.{e}": rng.standard_normal((64, d), np.float32) for n in range(layers) for e in range(experts)}
    tensors |= {f"l.{n}.heads": rng.standard_normal((8 * 32, d), np.float32) for n in range(layers)}
    tensors |= {"qkv": rng.standard_normal((512, d), np.float32), "whole": rng.standard_normal(1000, np.float32)}
    save_file(tensors, folder / "model.safetensors")
    stack = range(layers)
    np.save(folder / "rows.npy", np.stack([tensors[f"l.{n}.rows"] for n in stack]))
    moe = np.stack([np.stack([tensors[f"l.{n}.e.{e}"].T for n in stack]) for e in range(experts)])
    np.save(folder / "experts.npy", moe)
    np.save(folder / "heads.npy", np.stack([tensors[f"l.{n}.heads"].reshape(8, 32, d) for n in stack]))
    np.save(folder / "split.npy", tensors["qkv"][:256])
    np.save(folder / "whole.npy", tensors["whole"])


@pytest.mark.parametrize("count", [2, 4])
def test_each_process_reads_its_own_bytes(tmp_path: Path, count: int):
    written(tmp_path)
    env = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    port = free_port()
    command = [sys.executable, "-m", "tests.place.process"]
    started = [
        subprocess.Popen(
            [*command, str(rank), str(count), str(port), str(tmp_path)],
            env=env,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]
    try:
        outputs = [process.communicate(timeout=180) for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()
    for process, (out, err) in zip(started, outputs, strict=True):
        assert process.returncode == 0, err
        needed, read, planned = map(int, re.search(r"needed (\d+) read (\d+) planned (\d+)", out).groups())
        header = 64 * 1024 + (tmp_path / "model.safetensors").stat().st_size // 100
        assert needed <= planned <= 1.05 * needed
        assert read <= 1.05 * needed + 2 * header, (read, needed)
